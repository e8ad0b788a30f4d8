"""What a sample without, or with few, bad cases says about all there are."""


def share_at_most(found: int, looked_at: int, confidence: float = 0.95) -> float | None:
    """Upper bound of a share of which `found` of `looked_at` were seen; None where nothing was looked at.

    Clopper and Pearson (1934), one-sided. None of 1: 95 %; none of 5: 45 %; none of 59: 5 %.
    """
    from scipy.stats import beta

    if found >= looked_at:
        return 1.0 if looked_at else None
    return float(beta.ppf(confidence, found + 1, looked_at - found))
