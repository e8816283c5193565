"""`runway doctor`: check a cluster against the policy and against Runway's needs.

Read in this order: `findings` (the results), `run` (the order of the checks), then one module for each subject. A check
reads and never changes anything. It needs the server's packages; the command line loads `run` by its name.
"""
