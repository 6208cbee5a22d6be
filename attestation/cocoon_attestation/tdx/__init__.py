"""Intel TDX: quote format, collateral, authentication (`verify`) and policy (`validate`)."""
