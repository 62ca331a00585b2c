"""Answers: every model says what it is."""

from service import schemas


def test_every_model_says_what_it_is() -> None:
    models = [m for m in vars(schemas).values() if isinstance(m, type) and issubclass(m, schemas._Answer)]
    assert len(models) > 15
    assert [m.__name__ for m in models if not m.__doc__ and not m.__name__.startswith("_")] == []
