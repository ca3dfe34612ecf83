"""Types of a bucket from its JSON Schema: a parser, a model, and a printer for each language."""
