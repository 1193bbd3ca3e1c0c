"""The HTTP service: schemas, errors, metrics, middleware and routes. ``serving.app`` puts them together."""
