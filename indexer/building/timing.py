"""How long a build will take: a batch is measured at all checkpoints, and a few rows as the table of examples has them.

Bases are fitted on that batch where a build fits them on a sample; what the fit costs beside its gradients is taken
from there. What a card costs after the pass is a rate that was measured.
"""

from time import perf_counter

from indexer.building.begin import Beginning
from indexer.building.card import card_queries, planned_queries
from indexer.building.estimate import TABLE_ROWS, few_of, table_bytes
from indexer.building.fit import PASSES
from indexer.building.search import search_seconds
from indexer.methods.method import Asked, Batch, Method
from indexer.methods.registry import method_kind
from indexer.projection.pca import DEFAULT_SAMPLE
from indexer.task import read_rows

FEW = 8  # examples of the first pass, which is not measured
PAIR_SECONDS = 3e-7  # of the card's figures, a query and row
QUERY_SECONDS = 0.02  # of a query's vector


def seconds(beginning: Beginning, there: int) -> float:
    """Return the seconds that the build takes from here; there: rows whose vectors are there."""
    task, spec, model = beginning.task, beginning.spec, beginning.source.model
    rows = len(task.train)
    few = few_of(task, beginning.plan.batch_size)
    batch = read_rows(few.train, range(len(few.train)))
    started = perf_counter()
    method = _method(beginning, batch)
    fitted = perf_counter() - started
    queries = card_queries(task, planned_queries(method, task, spec.card_queries))
    asked = None if queries is None else method.asked(queries.batch)
    row_seconds = _pass(method, batch, asked)
    sample = 0 if spec.coded_bytes is None else min(rows, spec.projection.get("sample", DEFAULT_SAMPLE))
    fit = 0.0 if there else fitted + PASSES * sample * row_seconds
    card = 0.0 if queries is None else len(queries) * (QUERY_SECONDS + rows * PAIR_SECONDS)
    started = perf_counter()
    table_bytes(task, len(model))
    table = (perf_counter() - started) / min(TABLE_ROWS, rows)
    search = search_seconds(rows, QUERY_SECONDS)
    return fit + (rows - there) * row_seconds + card + search + sum(beginning.record.rows.values()) * table


def _method(beginning: Beginning, batch: Batch) -> Method:
    """Return the method as it is when it is fitted on one batch."""
    spec, source = beginning.spec, beginning.source
    kind, parameters = method_kind(spec.method), spec.method_parameters(len(source.model))
    sizes = beginning.step_sizes
    by_name = None if sizes is None else [size.by_name for size in sizes]
    fitted = kind.fit(source.model, source.etas, parameters, lambda: [batch], by_name)
    return kind.open(source.model, source.etas, parameters, fitted.tensors)


def _pass(method: Method, batch: Batch, asked: Asked | None) -> float:
    """Return the seconds of a row."""
    method.train_rows((batch[0][:FEW], batch[1][:FEW]), asked)
    started = perf_counter()
    method.train_rows(batch, asked)
    return (perf_counter() - started) / len(batch[0])
