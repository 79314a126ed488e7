"""A task whose first line tells when it ran."""

import time


def first_line() -> float:
    return time.time()
