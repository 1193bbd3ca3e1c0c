"""The eval harness: cases and measures that say whether TrendRAG is good, and whether it got better."""
