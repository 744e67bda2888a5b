"""What `cnnjax scale` shows: scaled networks, coefficients, and what fits a budget."""

from rich import box
from rich.table import Table

from cnnjax.terminal import by, numbers, show
from cnnjax.train.reporting import Record


def print_scaled(result: Record) -> None:
    """A table of a network at several phi, and below it what the multiply-adds' columns mean."""
    columns = [numbers(title) for title in ("phi", "depth", "width", "input", "parameters", "multiply-adds")]
    columns += [numbers(title) for title in ("formula", "rounded", "counted")]
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in result["rows"]:
        sizes = (f"{row['depth']:.3f}", f"{row['width']:.3f}", by(row["input"][:2]))
        ratios = (f"{row[name]:.2f}x" for name in ("macs_by_formula", "macs_after_rounding", "macs_ratio"))
        phi = "" if row["phi"] is None else f"{row['phi']:g}"
        table.add_row(phi, *sizes, f"{row['params']:,}", f"{row['macs']:,}", *ratios)
    show(table)
    for row in result["rows"]:
        channels = "-".join(str(stage["channels"]) for stage in row["stages"])
        repeats = "-".join(str(stage["repeats"]) for stage in row["stages"] if stage["repeats"])
        print(f"{_title(row)}: channels {channels}" + (f", repeats {repeats}" if repeats else ""))
        if "formula" in row:
            other = row["formula"]
            promised = f"depth {other['depth']:.3f}, width {other['width']:.3f}, {by(other['input'][:2])} pixels"
            print(f"  by the formula: {promised}")
    print("Multiply-adds by those at phi = 0: by the formula, by the formula of the rounded sizes, as counted.")


def print_grid(result: Record) -> None:
    """A table of coefficients, with what each costs at phi = 1."""
    columns = [numbers(title) for title in ("alpha", "beta", "gamma", "growth", "input", "parameters", "counted")]
    table = Table(*columns, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for row in result["rows"]:
        sizes = (f"{row[name]:.2f}" for name in ("alpha", "beta", "gamma", "growth"))
        table.add_row(*sizes, by(row["input"][:2]), f"{row['params']:,}", f"{row['macs_ratio']:.2f}x")
    show(table)


def print_fit(result: Record) -> None:
    """The largest network within a budget, and the next one."""
    for phi, cost, what in (("phi", "cost", "within"), ("next_phi", "next_cost", "above")):
        found = result[cost]
        scaled = found["scaled"]
        names = ("params", "macs", "activation_bytes", "training_bytes")
        costs = ", ".join(f"{name} {found[name]:,}" for name in names if found[name] is not None)
        args = (
            f"{name}={round(value, 4) if isinstance(value, float) else value}" for name, value in scaled["args"].items()
        )
        network = " ".join([scaled["name"], *args])
        print(f"{what}: phi {result[phi]:g}, {network}, {by(scaled['input_shape'][:2])} pixels: {costs}")


def _title(row: Record) -> str:
    if row["phi"] is not None:
        return f"phi {row['phi']:g}"
    return ", ".join(f"{name} {row[name]:g}" for name in ("depth", "width", "resolution"))
