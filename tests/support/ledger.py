"""The router's summary line, and the two sums that must hold in it."""
import re

PAIR = re.compile(r"([a-z_]+)=(\S+)")


class Ledger:
    """Counters of the summary line: `pipeline` a dict, `outputs` and `filters` dicts of dicts by label."""

    def __init__(self, text):
        lines = [x for x in text.splitlines() if x.startswith("summary ")]
        assert lines, "the router left no summary line; its last words were:\n" + "\n".join(text.splitlines()[-8:])
        self.line, self.outputs, self.filters = lines[-1], {}, {}
        own, *parts = (dict(PAIR.findall(part)) for part in self.line.split(" | "))
        self.pipeline = numbers(own)
        for pairs in parts:
            kind = "output" if "output" in pairs else "filter"
            label = pairs.pop(kind)
            (self.outputs if kind == "output" else self.filters)[label] = numbers(pairs)

    def __getitem__(self, key):
        return self.pipeline[key]

    def check(self):
        """Both sums; fails with the side that does not hold."""
        p = self.pipeline
        into = p["received"] + p["made"]
        out = sum(p[k] for k in ("refused", "filtered", "joined", "unrouted", "routed", "holding"))
        assert into == out, "filters: in %d, accounted for %d: %s" % (into, out, self.line)
        for name, o in self.outputs.items():
            into = o["routed"] + o["recovered"]
            out = o["delivered"] + o["dead_lettered"] + o["held"]
            out += sum(v for k, v in o.items() if k.startswith("dropped"))
            assert into == out, "output %s: in %d, accounted for %d: %s" % (name, into, out, self.line)
        return self

    def lost(self):
        """Records that outputs gave up."""
        return sum(v for o in self.outputs.values() for k, v in o.items() if k.startswith("dropped"))


def numbers(pairs):
    return {key: int(value) for key, value in pairs.items()}
