"""The search of a build, fitted to its rows and tuned on examples of the test split, which no row was made from."""

from indexer.building.card import card_queries, query_vectors
from indexer.building.progress import Progress
from indexer.index.code import SCALE_BYTES
from indexer.index.manifest import SearchEntry, VectorsEntry
from indexer.index.objects import Objects
from indexer.index.search.fit import FLAT_UP_TO, WIDEST, WIDTHS, fit_search, is_scanned
from indexer.index.search.prefix import SIDES
from indexer.index.store import open_store
from indexer.methods.method import Method
from indexer.task import Task

QUERIES = 200  # half of them tune, the others say what was reached: 1,000 places of each direction
ROW_SECONDS = 5e-5  # of a row in a fit, measured with a million
FIT_SECONDS = 5.0  # of the directions of 1,500 numbers
SQUARES = 5  # matrices of float64, width by width, that an eigendecomposition has at once
ROW_BYTES = 32  # of the rows' norms, their order, and copies of both


def fitted_search(
    task: Task, method: Method, vectors: VectorsEntry, objects: Objects, progress: Progress
) -> SearchEntry:
    """Return the search of the stored rows; so few that all are scanned need no queries.

    Without a test split training examples are asked about.
    """
    store = open_store(objects, vectors)
    if is_scanned(store):
        return fit_search(store, None, objects)
    progress("search", 0, 2)
    asked = card_queries(task, QUERIES)
    queries = None if asked is None else query_vectors(method, asked)
    progress("search", 1, 2)
    found = fit_search(store, queries, objects)
    progress("search", 2, 2)
    return found


def search_bytes(rows: int, row_bytes: int) -> int:
    """Return about what the search of so many rows takes on disk, on the fewest directions.

    A vector is taken to have four numbers a byte, which is more than any code gives, and up to the widest.
    """
    if rows <= FLAT_UP_TO:
        return 0
    width = min(4 * row_bytes, WIDEST)
    return rows * (SCALE_BYTES + WIDTHS[0] + SIDES.itemsize) + width * (8 * WIDTHS[0] + 4 * QUERIES)


def search_memory(rows: int, row_bytes: int) -> int:
    """Return about what the fit holds: products of all directions, eigenvectors, workspace; norms and order of rows."""
    return 0 if rows <= FLAT_UP_TO else SQUARES * 8 * min(4 * row_bytes, WIDEST) ** 2 + ROW_BYTES * rows


def search_seconds(rows: int, query_seconds: float) -> float:
    """Return about how long the fit takes."""
    return 0.0 if rows <= FLAT_UP_TO else FIT_SECONDS + rows * ROW_SECONDS + QUERIES * query_seconds
