"""The stages of ``razordeploy run``: one function for each, and the literal table that names them."""
