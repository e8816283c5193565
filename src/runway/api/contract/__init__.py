"""The OpenAPI document: what the routes alone do not say of themselves.

`document` puts it together. `spec` is the schema of a job specification, `fields` what each field of an answer means,
`examples` and `errors` are real requests, answers and problems, made by the code that makes them in earnest.
"""
