"""Candidates: LBP features, boosted cascade, multi-scale scan."""
