"""The report's score."""

from __future__ import annotations

import math

REFERENCE_PSNR = {2: 33.917, 3: 31.303}
"""Bicubic's PSNR over RGB on the report's test set by scale, in dB: 33.92 and 31.30, as exact as the scores tell."""


def score(psnr: float, milliseconds: float, scale: int) -> float:
    """S = 2 * 2^(PSNR - bicubic's PSNR) / (0.1 * sqrt(ms)), and 0 for what is no better than bicubic.

    This is the organisers' formula. Equation 2 of the report has the exponent doubled and does not give its own scores.

    Args:
        psnr: over RGB on the report's test set, in dB.
        milliseconds: for one frame.
        scale: 2 or 3.
    """
    gain = psnr - REFERENCE_PSNR[scale]
    return 2 * 2**gain / (0.1 * math.sqrt(milliseconds)) if gain > 0 else 0.0
