"""Checks rules with Great Expectations, on pandas in memory or on Spark, with the same suites and the same results.

Nothing here uses the network: the library's analytics are off, and its context lives in memory only.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from feast_repo.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from batch.quality.rules import Rule, Suite

ROW = "row"
"""The column that numbers the rows of a batch."""
MOST_EXAMPLES = 5


class QualityError(RefusedError):
    """The rules can't be checked; the message names the remedy."""


@dataclass(frozen=True)
class Batch:
    """A pandas or Spark frame with ROW, its suite, and the columns that identify a row for people."""

    suite: Suite
    frame: Any
    known_by: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One rule's result: `broken` has the ROW numbers that break it, `examples` the first few offending values."""

    rule: Rule
    holds: bool
    broken: tuple[int, ...] = ()
    examples: list[Any] = field(default_factory=list)

    @property
    def stops(self) -> bool:
        """Whether it stops publication: a table rule failed."""
        return self.rule.scope == "table" and not self.holds


def validate(batches: Sequence[Batch], docs: Path) -> list[Finding]:
    """Check all batches as one checkpoint and write Data Docs below `docs`; findings are in rule order.

    Raises:
        QualityError: Great Expectations is not installed, or a rule can't be computed.
        OSError: the folder is not writable.
    """
    os.environ["GX_ANALYTICS_ENABLED"] = "false"  # read once, when the library is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from the library's dependencies: callers can't act on them
        return _validate(batches, docs)


def _validate(batches: Sequence[Batch], docs: Path) -> list[Finding]:
    try:
        import great_expectations as gx  # noqa: PLC0415  (takes seconds, and is an extra)
        from great_expectations import expectations  # noqa: PLC0415
        from great_expectations.checkpoint.actions import UpdateDataDocsAction  # noqa: PLC0415
    except ImportError as error:
        message = "Great Expectations is not installed: pip install '.[quality]'"
        raise QualityError(message) from error

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]  # a plain mapping is what it takes
    folder = str(docs).replace("$", r"\$")  # otherwise it would be taken for a variable
    store = {"class_name": "TupleFilesystemStoreBackend", "base_directory": folder}
    site = {
        "class_name": "SiteBuilder",
        "store_backend": store,
        "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
    }
    context.add_data_docs_site("quality", site)  # type: ignore[arg-type]  # as its documentation has it
    findings = []
    for batch in batches:
        name = batch.suite.name
        is_pandas = type(batch.frame).__module__.startswith("pandas")
        add = context.data_sources.add_pandas if is_pandas else context.data_sources.add_spark
        definition = add(name).add_dataframe_asset(name).add_batch_definition_whole_dataframe("all")
        suite = gx.ExpectationSuite(
            name,
            expectations=[
                getattr(expectations, rule.expectation)(**rule.arguments, meta={"rule": rule.name}, notes=rule.says)
                for rule in batch.suite.rules
            ],
        )
        validation = gx.ValidationDefinition(name=name, data=definition, suite=context.suites.add(suite))
        checkpoint = gx.Checkpoint(
            name=name,
            validation_definitions=[context.validation_definitions.add(validation)],
            actions=[UpdateDataDocsAction(name="docs", site_names=["quality"])],
            result_format={
                "result_format": "COMPLETE",
                "unexpected_index_column_names": [ROW, *batch.known_by],
                "include_unexpected_rows": False,
            },
        )
        outcome = context.checkpoints.add(checkpoint).run(batch_parameters={"dataframe": batch.frame})
        (result,) = outcome.run_results.values()
        configured = [(one.expectation_config, one) for one in result.results]
        by_rule = {config.meta["rule"]: one for config, one in configured if config and config.meta}
        findings += [_finding(rule, by_rule[rule.name], batch.known_by) for rule in batch.suite.rules]
    return findings


def _finding(rule: Rule, outcome: Any, known_by: tuple[str, ...]) -> Finding:
    told = outcome.exception_info or {}
    failures = [told] if "raised_exception" in told else list(told.values())
    for failure in failures:
        if failure["raised_exception"]:
            message = f"rule {rule.name} can't be checked: {str(failure['exception_message']).partition(chr(10))[0]}"
            raise QualityError(message)
    places = outcome.result.get("unexpected_index_list") or []
    examples = [_plain(place, known_by) for place in places[:MOST_EXAMPLES]]
    return Finding(rule, bool(outcome.success), tuple(int(place[ROW]) for place in places), examples)


def _plain(place: Mapping[str, Any], known_by: tuple[str, ...]) -> str:
    """Offending values as text, such as `card_17, 4: 7`."""
    values = [value for name, value in place.items() if name not in {ROW, *known_by}]
    text = ", ".join(f"{value:.6g}" if isinstance(value, float) else str(value) for value in values)
    is_known = not text or any(place[name] is not None for name in known_by)  # an unreadable key is the value itself
    known = ", ".join(str(place[name]) for name in known_by) if is_known else ""
    return ": ".join(filter(None, [known, text]))
