"""Client of TON liteservers that believes nothing it cannot prove."""
