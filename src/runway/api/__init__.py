"""The HTTP interface: routes per noun, problem documents, middleware."""
