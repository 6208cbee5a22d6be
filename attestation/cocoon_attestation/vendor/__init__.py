"""Raw vendor evidence as it is: a quote, a report, a log, judged alone.

These functions stand behind ``cocoon verify quote|snp|gpu|eventlog``. They say whether evidence is genuine
and, where reference values are given, whether it is the expected one. A client session never uses them:
`cocoon_attestation.appraise` is the only way to a `VerifiedEnclave`.
"""
