"""The batch jobs on schedule: thin Prefect flows, which run the project's commands and tell what came of them."""
