"""What owners find again: their captions, what they think of these, and what can be learnt from that."""
