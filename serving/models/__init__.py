"""Model servers behind the ports ``trendrag.ports.Describer`` and ``Writer``, one module per kind of server."""
