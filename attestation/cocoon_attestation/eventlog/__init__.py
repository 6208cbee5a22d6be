"""Boot event logs (CCEL and dstack JSON): parsers, replay and the rules on what a log may claim."""
