"""The `cocoon` command: one file per audience, JSON or text from one object."""

__all__: list[str] = []
