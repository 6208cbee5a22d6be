"""The `cocoon` command: one file per audience, one result object per command, JSON or text from the same data."""

__all__: list[str] = []
