"""Quality gates: which rows may be published, and whether published rows can be trusted.

In: a candidate table, or stored rows. Out: published rows, quarantined rows with the names of the rules, a report.
Guarantee: Polars and Spark give the same verdict, and no broken row is published.
"""
