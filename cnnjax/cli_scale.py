"""`cnnjax scale`: parse, call, print."""

import dataclasses
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, cast

import typer

from cnnjax.cli_options import Fields, Json
from cnnjax.errors import ConfigError

_SHOWN = (-1.0, 0.0, 1.0, 2.0, 3.0)


def scale(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A network or a family, such as efficientnet.")],
    fields: Fields = None,
    phi: Annotated[
        list[float] | None, typer.Option("--phi", help="May be given several times; by default -1 to 3.")
    ] = None,
    strategy: Annotated[
        Literal["compound", "depth", "width", "resolution"],
        typer.Option(help="All three dimensions, or one alone for as many multiply-adds."),
    ] = "compound",
    mode: Annotated[
        Literal["formula", "release"], typer.Option(help="The paper's formula, or EfficientNet's networks as released.")
    ] = "formula",
    alpha: Annotated[float, typer.Option(help="Of the depth, for each unit of phi.")] = 1.2,
    beta: Annotated[float, typer.Option(help="Of the width.")] = 1.1,
    gamma: Annotated[float, typer.Option(help="Of the resolution.")] = 1.15,
    input_size: Annotated[
        int | None, typer.Option("--input", help="Of the images at phi = 0, in pixels.", min=1)
    ] = None,
    multiple: Annotated[int, typer.Option(help="Round image sizes to multiples of it.", min=1)] = 1,
    factors: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=NUMBER,...", help="These instead of phi's, such as depth=2,resolution=1.3."),
    ] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(metavar="QUANTITY=NUMBER", help="Find the largest phi within it, such as macs=1.8e9."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images of a batch, for training_bytes.", min=1)] = 1,
    step: Annotated[float, typer.Option(help="Of phi, where a budget is given.")] = 0.01,
    search: Annotated[
        bool, typer.Option("--grid", help="List coefficients with about twice the multiply-adds at phi = 1.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Scale a network's depth, width and resolution by phi, or find the largest one within a budget."""
    if bool(phi) + bool(factors) + bool(budget) + search > 1:
        raise ConfigError("--phi, --factors, --budget and --grid are four questions; ask one of them")
    if factors and strategy != "compound":
        raise ConfigError("--strategy says which factors a phi has; with --factors leave it out")
    from cnnjax import scaling
    from cnnjax.analysis.scaled import describe, largest_within
    from cnnjax.config_files import load_config
    from cnnjax.terminal_scale import print_fit, print_grid, print_scaled

    args = load_config(None, [f"model.args.{field}" for field in fields or []]).model.args
    coefficients = scaling.Coefficients(alpha, beta, gamma)
    name = scaling.base_of(model)

    def scaled_at(phi: float, coefficients: scaling.Coefficients = coefficients) -> scaling.Scaled:
        return scaled_by(coefficients.at(phi, strategy))

    def scaled_by(factors: scaling.Factors) -> scaling.Scaled:
        return scaling.scale(name, factors, fields=args, image_size=input_size, multiple=multiple)

    result: dict[str, Any] = {"model": name, "mode": mode, "strategy": strategy}
    print_result: Callable[[dict[str, Any]], None] = print_scaled
    if mode == "release":
        names = {"efficientnet_b0": "b", "efficientnet_lite0": "lite"}
        if args or factors or budget or search or input_size or strategy != "compound" or name not in names:
            raise ConfigError(
                "--mode release has efficientnet_b0's and efficientnet_lite0's networks; give --phi alone"
            )
        family = cast(Literal["b", "lite"], names[name])
        chosen = phi or [float(each) for each in scaling.released_phis(family)]
        rows = describe([(each, scaling.released(each, family)) for each in chosen], scaling.released(0, family))
        result["rows"] = [{**row, "formula": _factors(scaled_at(row["phi"]))} for row in rows]
    elif search:
        candidates = scaling.grid()
        rows = describe([(1.0, scaled_at(1.0, each)) for each in candidates], scaled_at(0))
        result["rows"] = [{**_of(each), **row} for each, row in zip(candidates, rows, strict=True)]
        print_result = print_grid
    elif budget:
        limits = dict(_limit(each) for each in budget)
        fit = largest_within(limits, scaled_at, batch=batch_size, step=step)
        result |= {"budget": limits, **dataclasses.asdict(fit)}
        print_result = print_fit
    elif factors:
        chosen_factors = [scaling.parse_factors(each) for each in factors]
        result["rows"] = describe([(None, scaled_by(each)) for each in chosen_factors], scaled_at(0))
    else:
        result["coefficients"] = _of(coefficients)
        result["rows"] = describe([(each, scaled_at(each)) for each in phi or _SHOWN], scaled_at(0))
    if as_json:
        print(json.dumps(result))
    else:
        print_result(result)


def _of(coefficients: Any) -> dict[str, float]:
    return {**dataclasses.asdict(coefficients), "growth": coefficients.growth}


def _factors(scaled: Any) -> dict[str, Any]:
    return {**dataclasses.asdict(scaled.factors), "input": list(scaled.input_shape)}


def _limit(text: str) -> tuple[Any, float]:
    from cnnjax.analysis.scaled import QUANTITIES
    from cnnjax.registry import did_you_mean

    name, _, number = text.partition("=")
    if name not in QUANTITIES:
        raise ConfigError(f"--budget: there is no quantity '{name}'; {did_you_mean(name, QUANTITIES)}")
    try:
        limit = float(number)
    except ValueError:
        limit = 0.0
    if not 0 < limit < float("inf"):
        raise ConfigError(f"--budget {name}: expected a number above 0, such as {name}=1.8e9, got '{number}'")
    return name, limit
