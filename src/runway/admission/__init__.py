"""Admission of a job: bounds, price, quota and rate. Pure, except the ledger."""
