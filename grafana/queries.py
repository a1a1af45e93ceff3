"""PromQL in the pieces that the panels share.

Every selector names the job and the instances that the dashboard's variables hold, and the identities or routes where
the metric has such a label: nothing of another gateway is ever added in.
"""

from dataclasses import dataclass
from typing import Final

PREFIX: Final = "opentv_proxy_"
GATEWAY: Final = ('job="$job"', 'instance=~"$instance"')


@dataclass(frozen=True)
class Query:
    """legend: ``{{label}}`` becomes the label's value. now: only the newest value counts, so it is asked for alone."""

    expr: str
    legend: str
    now: bool = False


def selector(name: str, *matchers: str) -> str:
    return f"{name}{{{','.join((*GATEWAY, *matchers))}}}"


def of_gateway(name: str, *matchers: str) -> str:
    return selector(PREFIX + name, *matchers)


def of_identity(name: str, *matchers: str) -> str:
    return selector(PREFIX + name, 'identity=~"$identity"', *matchers)


def of_route(name: str, *matchers: str) -> str:
    return selector(PREFIX + name, 'route=~"$route"', *matchers)


def rate(counter: str) -> str:
    """Per second."""
    return f"rate({counter}[$__rate_interval])"


def increase(counter: str) -> str:
    """About how many within a step: what is rare reads better counted than as a rate."""
    return f"increase({counter}[$__rate_interval])"


def total(vector: str, *by: str) -> str:
    return f"sum by ({', '.join(by)}) ({vector})" if by else f"sum({vector})"


def quantile(share: float, buckets: str, *by: str) -> str:
    """Of a histogram's ``_bucket`` series; NaN while nothing was observed."""
    return f"histogram_quantile({share}, {total(rate(buckets), 'le', *by)})"
