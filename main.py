"""`uvicorn main:app` serves Runway."""

from runway.app import create

app = create()
