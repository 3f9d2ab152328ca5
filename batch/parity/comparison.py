"""Compares stored with recomputed rows, window by window: equal, different, or explained by late events."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from batch.parity.explanation import BOTH, ROW, UNDECLARED, Truth, explained
from batch.recompute.archive import LATE, PARTITION
from batch.recompute.rows import STORED, in_two_partitions, may_be_null, named, null_as_seen, with_nulls_as_seen
from batch.recompute.stored import bits, effective
from feast_repo.declare.rows import CREATED, EVENT_TIME
from feast_repo.declare.stored import offline_columns

if TYPE_CHECKING:
    from batch.recompute.archive import Mode
    from feast_repo.declare.views import WindowedView

NTH, IN_STORE, IN_BATCH, OWN, WHOLE, COPY = "#nth", "#in_store", "#in_batch", "#own", "#whole", "#copy"
"""NTH numbers rows of one user and window; OWN: the stored row is the stream's; WHOLE: so are others of the window;
COPY: the same row is stored once more, as happens briefly during compaction, which harms no reader."""
BY_STREAM = pl.col("writer").eq_missing(pl.lit("stream"))
DEFAULT_EXAMPLES = 20


@dataclass
class FeatureCount:
    """One column's counts. `undeclared`: rows from before the feature was declared, with nothing to compare."""

    compared: int = 0
    equal: int = 0
    different: int = 0
    explained: int = 0
    undeclared: int = 0
    largest_difference: float = 0.0


@dataclass
class ParityComparison:
    """Sums over all windows. A row is explained if late events cause exactly its difference.

    `not_compared`: backfilled rows of events that this mode lacks: from history, or late in all windows.
    """

    view: WindowedView
    mode: Mode
    most_examples: int = DEFAULT_EXAMPLES
    recomputed: int = 0
    equal: int = 0
    different: int = 0
    only_in_stream: int = 0
    only_in_batch: int = 0
    explained: int = 0
    backfilled: int = 0
    not_compared: int = 0
    features: dict[str, FeatureCount] = field(default_factory=dict)
    examples: list[dict[str, Any]] = field(default_factory=list)
    in_two_partitions: list[str] = field(default_factory=list)
    series: list[pl.DataFrame] = field(default_factory=list)

    @property
    def _columns(self) -> list[str]:
        """The compared columns."""
        return [*self.view.features, CREATED]

    @property
    def unexplained(self) -> int:
        """Rows that differ or exist on one side only, and that no late event explains."""
        return self.different + self.only_in_stream + self.only_in_batch - self.explained

    def add(self, truth: Truth, stored: pl.DataFrame) -> None:
        """Compare all recomputed and all stored rows of some windows."""
        view = self.view
        rows = truth.rows(self.mode)
        split = in_two_partitions(view, rows)
        self.in_two_partitions = sorted({*self.in_two_partitions, *named(split)})
        if self.mode == "as-seen":
            rows, stored = self._as_seen(rows, stored)
        else:
            # There is no way to tell which of two halves is right.
            rows, stored = (side.join(split, on=view.join_keys, how="anti") for side in (rows, stored))
            rows = rows.with_columns(pl.lit(value=True).alias(WHOLE))
            stored = effective(view, stored).with_columns((pl.col("writer") != "backfill").alias(OWN))
        self._count(self._paired(rows, stored), truth)

    def _as_seen(self, rows: pl.DataFrame, stored: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The stream's own rows, or backfilled rows for a window and partition that it has none of."""
        keys = [*self.view.join_keys, EVENT_TIME]
        own = stored.filter(pl.col("writer") == "stream").with_columns(pl.lit(value=True).alias(OWN))
        streamed = rows.join(own.select(keys), on=keys, how="semi").select(PARTITION, EVENT_TIME).unique()
        rows = rows.join(
            streamed.with_columns(pl.lit(value=True).alias(WHOLE)), on=[PARTITION, EVENT_TIME], how="left"
        ).with_columns(pl.col(WHOLE).fill_null(value=False))
        filled = effective(self.view, stored.filter(pl.col("writer") == "backfill"))
        # A complete backfill also has users with late events only; complete parity compares those.
        self.not_compared += filled.join(rows, on=keys, how="anti").height
        filled = filled.join(rows.filter(~pl.col(WHOLE)).select(keys), on=keys, how="semi")
        return rows, pl.concat([own, filled.with_columns(pl.lit(value=False).alias(OWN))])

    def _paired(self, rows: pl.DataFrame, stored: pl.DataFrame) -> pl.DataFrame:
        keys = [*self.view.join_keys, EVENT_TIME]
        values = [CREATED, *self.view.features]

        alike = any(side.select(keys).is_duplicated().any() for side in (rows, stored))

        def numbered(side: pl.DataFrame, mark: str) -> pl.DataFrame:
            nth = pl.int_range(pl.len()).over(keys) if alike else pl.lit(0, pl.Int64)
            ordered = side.sort(*keys, *values, nulls_last=True) if alike else side
            return ordered.with_columns(nth.alias(NTH), pl.lit(value=True).alias(mark))

        copies = stored.is_duplicated() if alike else pl.lit(value=False)
        store = numbered(stored.with_columns(copies.alias(COPY)), IN_STORE)
        store = store.rename({name: STORED + name for name in values})
        paired = numbered(rows, IN_BATCH).join(store, on=[*keys, NTH], how="full", coalesce=True)
        paired = paired.with_columns(pl.col(IN_STORE, IN_BATCH, OWN, WHOLE, COPY, LATE).fill_null(value=False))
        # Rows that a backfill made from history have no counterpart in the archive.
        from_history = ~pl.col(IN_BATCH) & ~pl.col(OWN)
        self.not_compared += paired.filter(from_history).height
        return paired.filter(~from_history & (pl.col(IN_BATCH) | ~pl.col(COPY)))

    def _judged(self, paired: pl.DataFrame, truth: Truth) -> pl.DataFrame:
        """Add what is compared, undeclared and different, by feature and by row."""
        types = offline_columns(self.view)
        nulls = (pl.col(STORED + name).is_null() & pl.col(name).is_not_null() for name in may_be_null(self.view))
        if self.mode == "complete" and paired.select(pl.any_horizontal(pl.lit(value=False), *nulls).any()).item():
            paired = with_nulls_as_seen(self.view, paired, truth.rows("as-seen"))
        for name in self._columns:
            left, right = bits(STORED + name, types[name]), bits(name, types[name])
            # A stream row's creation time follows from the log, a batch row's from the clock.
            compared = pl.col(BOTH) & BY_STREAM if name == CREATED else pl.col(BOTH)
            without = pl.col(STORED + name).is_null() & pl.col(name).is_not_null()
            undeclared = pl.lit(value=False)
            if paired.select((compared & without).any()).item():
                undeclared = compared & without & pl.col(STORED + name).is_null().all().over(PARTITION, EVENT_TIME)
                undeclared &= ~null_as_seen(name, paired)
            paired = paired.with_columns(
                (compared & ~undeclared).alias(f"#compared:{name}"),
                undeclared.alias(UNDECLARED + name),
                (compared & ~undeclared & left.ne_missing(right)).alias(f"#different:{name}"),
            )
        different = (pl.col(f"#different:{name}") for name in self._columns)
        return paired.with_columns(pl.any_horizontal(pl.lit(value=False), *different).alias("#different"))

    def _explained(self, paired: pl.DataFrame, truth: Truth) -> pl.DataFrame:
        """Add what late events explain. A stream row must be as seen, even if it happens to equal the truth."""
        is_late = pl.col(BOTH) & BY_STREAM & pl.col(LATE) & pl.lit(self.mode == "complete")
        to_explain = pl.col("#different") | ~pl.col(BOTH) | is_late
        numbers = explained(self.view, self.mode, paired.filter(to_explain), truth)
        paired = paired.with_columns(pl.col(ROW).is_in(numbers.implode()).alias("#explained"))
        true_by_chance = is_late & ~pl.col("#explained") & ~pl.col("#different")
        if paired.select(true_by_chance.any()).item():
            chance = paired.filter(true_by_chance)
            keys = [*self.view.join_keys, EVENT_TIME]
            seen = truth.rows("as-seen").join(chance, on=keys, how="semi").select(*keys, *self._columns)
            as_seen = chance.drop(self._columns).join(seen, on=keys, how="left").select(paired.columns)
            paired = self._judged(pl.concat([paired.filter(~true_by_chance), as_seen]), truth)
        return paired

    def _count(self, paired: pl.DataFrame, truth: Truth) -> None:
        columns = self._columns
        both = pl.col(IN_STORE) & pl.col(IN_BATCH)
        paired = self._judged(paired.with_columns(both.alias(BOTH)).with_row_index(ROW), truth)
        paired = self._explained(paired, truth)
        wrong = pl.col("#different") | ~pl.col(BOTH)
        self.recomputed += int(paired[IN_BATCH].sum())
        self.different += int(paired["#different"].sum())
        self.equal += paired.filter(~wrong).height
        self.only_in_stream += paired.filter(~pl.col(IN_BATCH)).height
        self.only_in_batch += paired.filter(~pl.col(IN_STORE)).height
        self.explained += paired.filter(wrong & pl.col("#explained")).height
        self.backfilled += paired.filter(pl.col(BOTH) & ~pl.col(OWN)).height
        for name in columns:
            self._count_feature(name, paired)
        self._note(paired.filter(wrong), columns)
        self._sum_up(paired, wrong)

    def _count_feature(self, name: str, paired: pl.DataFrame) -> None:
        different = pl.col(f"#different:{name}")
        both = (STORED + name, name)
        left, right = (
            (pl.col(side).dt.epoch("us") / 1_000_000 if name == CREATED else pl.col(side).cast(pl.Float64))
            for side in both
        )
        compared, unequal, explained, undeclared, largest = paired.select(
            pl.col(f"#compared:{name}").sum(),
            different.sum().alias("different"),
            (different & pl.col("#explained")).sum().alias("explained"),
            pl.col(UNDECLARED + name).sum(),
            (left - right).abs().filter(different).max().fill_null(0.0).alias("largest"),
        ).row(0)
        count = self.features.setdefault(name, FeatureCount())
        count.compared += compared
        count.equal += compared - unequal
        count.different += unequal
        count.explained += explained
        count.undeclared += undeclared
        count.largest_difference = max(count.largest_difference, largest)

    def _note(self, wrong: pl.DataFrame, columns: list[str]) -> None:
        """Keep the first wrong rows, unexplained ones first."""
        keys = self.view.join_keys
        rows = wrong.sort("#explained", EVENT_TIME, *keys).head(self.most_examples)
        for row in rows.iter_rows(named=True):
            example = {
                "entity": ", ".join(str(row[key]) for key in keys), "window_end": row[EVENT_TIME].isoformat(),
                "writer": row["writer"], "explained": row["#explained"],
            }  # fmt: skip
            if not row[BOTH]:
                side = "only in stream" if row[IN_STORE] else "only in batch"
                self.examples.append({**example, "feature": side, "stream": None, "batch": None})
                continue
            self.examples += [
                {**example, "feature": name, "stream": _plain(row[STORED + name]), "batch": _plain(row[name])}
                for name in columns
                if row[f"#different:{name}"]
            ]
        self.examples.sort(key=lambda example: bool(example["explained"]))
        del self.examples[self.most_examples :]

    def _sum_up(self, paired: pl.DataFrame, wrong: pl.Expr) -> None:
        """Keep sums by window end for the plots."""
        features = [
            pl.col(name).cast(pl.Float64).filter(pl.col(BOTH)).sum().alias(name)
            for feature in self.view.features
            for name in (feature, STORED + feature)
        ]
        sums = paired.group_by(EVENT_TIME).agg(
            pl.len().cast(pl.Int64).alias("#rows"), wrong.sum().cast(pl.Int64).alias("#wrong"), *features
        )
        self.series.append(sums)


def _plain(value: Any) -> Any:
    return value.isoformat() if hasattr(value, "isoformat") else value
