"""A report for reading: `report.json` as Markdown, the paper's numbers beside ours."""

from collections.abc import Sequence

from epnet_tf.evaluation import paper
from epnet_tf.runtime import units

_CAPTIONS = {
    "benefit": "Benefit against cost sensitivity (the paper's Figure 6)",
    "exit-rates": "Who has left by which exit (Figures 7 and 8)",
    "exit-profile": "Accuracy and exit rate of each exit (Figure 9)",
    "learning": "Benefit while training: exact gradient and REINFORCE (Figure 10)",
    "way-to-hindsight": "The way from the best static exit to hindsight",
    "accuracy-against-{unit}": "Accuracy for compute",
    "calibration": "Calibration of the exits",
    "examples": "Images by the exit that they left through",
}

_NOISE = (
    " A clock's noise is not covered: at each exit's 90th percentile the mean on the "
    "validation images would be, for {}."
)


def report(content: dict, figures: Sequence[str]) -> str:
    """The report of one data set.

    Args:
        content: What `report.json` holds.
        figures: Names of the figures beside it.

    Returns:
        Markdown.
    """
    parts = [
        f"# {content['dataset']}\n",
        _introduction(content),
        "## Aims\n",
        table(["aim", "reached", ""], _aims(content)),
        "## Benefit (Figure 6)\n",
        _benefits(content),
        _paper_benefits(content),
        f"## Budgeted classification (Table 1), β = {_beta(content):g}\n",
        _table_1(content),
    ]
    if "table2" in content:
        parts += ["## Controllers (Table 2)\n", _table_2(content)]
    if content["promises"]:
        parts += ["## Promises\n", _promises(content)]
    parts += [
        "## Exact gradient and REINFORCE (Figure 10)\n",
        _learning(content),
        f"## Exits of `epnet`, first seed, β = {_beta(content):g} (Figure 9)\n",
        _exits(content),
        "## Figures\n",
    ]
    named = {n.format(unit=content["cost_unit"]): c for n, c in _CAPTIONS.items()}
    parts += [
        f"{caption}:\n\n![{caption}]({name}.png)\n"
        for name, caption in named.items()
        if name in figures
    ]
    return "\n".join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table.

    Args:
        head: Names of the columns.
        rows: Cells.
    """
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _beta(content) -> float:
    return content["settings"]["table_beta"]


def _introduction(content) -> str:
    settings, sweep = content["settings"], content["sweep"]
    return (
        f"`{content['command']}`, {content['seconds']:.0f} s. "
        f"Test set of {settings['test_images']:,} images; the full network takes "
        f"{content['full_macs'] / 1e6:.2f} M multiply-adds{_clocked(content)} and is "
        f"right on "
        f"{content['exits'][-1]['accuracy']:.2%}. Learned policies are means of "
        f"{settings['seeds']} seeds of the controllers. All policies work on the same "
        "exits, are trained and tuned on training and validation images, and pay for "
        "what they execute. `backward-induction` is fitted to at most 12,000 states "
        "and charged as if its trees were controllers; entropies are in nats.\n\n"
        f"{_paper_network(content)}"
        f"The controllers of {sweep['betas']} β were trained together on cached states "
        f"in {sweep['seconds']:.0f} s. By 50 steps of each, one after the other, that "
        f"takes {sweep['sweep_seconds']:.0f} s, computing the states "
        f"{sweep['states_seconds']:.0f} s, and training on images "
        f"{sweep['seconds_on_images']:.0f} s for one β: for all, "
        f"{sweep['times_faster']:.0f} times as long, or "
        f"{sweep['times_faster_with_states']:.0f} times with the states computed.\n"
    )


def _clocked(content) -> str:
    """What the full network costs, if that is not counted in multiply-adds."""
    full, unit = content["full_cost"], content["cost_unit"]
    return "" if unit == units.MACS else f", {units.shown(full, unit)},"


def _paper_network(content) -> str:
    papers = content["paper_network"]
    if papers["classifiers"] == content["classifiers"]:
        return ""
    accuracies = " ".join(f"{100 * a:.1f}" for a in papers["accuracies"])
    return (
        "But for `epnet-paper`, and the paper's rows of Table 2: these controllers are "
        "on a network of their own, as the paper describes it, with global averages "
        "for branch classifiers and trained by the plain sum of cross-entropies. Its "
        f"exits are right on {accuracies}%.\n\n"
    )


def _aims(content) -> list[list[str]]:
    """What we set out for, and whether it came so; a miss is called a miss."""
    settings, rows = content["settings"], []
    last = 100.0 * content["exits"][-1]["accuracy"]
    if settings["last_exit"] is not None:
        rows.append(
            [
                f"{settings['last_exit']:g}% right at the last exit",
                f"{last:.2f}%",
                _verdict(last >= settings["last_exit"]),
            ]
        )
    for beta, goal in settings["benefits"]:
        if beta in content["betas"]:
            found = benefit(content, "epnet", beta)
            rows.append(
                [
                    f"a benefit of {goal:g} at β = {beta:g}",
                    f"{found:.2f}",
                    _verdict(found >= goal),
                ]
            )
    leads = {beta: lead for beta, lead in settings["leads"]}
    for beta in content["betas"]:
        lead = benefit(content, "epnet", beta) - benefit(
            content, "softmax-per-exit", beta
        )
        goal = float(leads.get(beta, 0.0))
        rows.append(
            [
                f"{goal:g} points above `softmax-per-exit` at β = {beta:g}",
                f"{lead:+.2f}",
                _verdict(lead >= goal),
            ]
        )
    if settings["way"] is not None:
        for ways in content["way_to_hindsight"]:
            if ways["beta"] in content["betas"]:
                rows.append(
                    [
                        f"{settings['way']:g}% of the way from `static` to `hindsight` "
                        f"at β = {ways['beta']:g}",
                        f"{ways['epnet']:.1f}%",
                        _verdict(ways["epnet"] >= settings["way"]),
                    ]
                )
    at_share = content["at_share"]
    if at_share is not None:
        rows.append(
            [
                f"{settings['share_accuracy']}% right with {at_share['share']:.1%} of "
                f"the compute (the paper: {at_share['paper']}%)",
                f"{at_share['accuracy']:.2f}% with {at_share['spent']:.2%}; guessing "
                f"what is over the share, {at_share['budget_accuracy']:.2f}%; the last "
                f"exit: {at_share['last_exit']:.2f}%",
                _verdict(at_share["budget_accuracy"] >= settings["share_accuracy"]),
            ]
        )
    return rows


def _verdict(reached: bool) -> str:
    return "reached" if reached else "**missed**"


def benefit(content: dict, policy: str, beta: float) -> float:
    """A policy's benefit at one β, from a report."""
    rows = content["policies"][policy]
    return next(r["benefit"] for r in rows if r["beta"] == beta)


def _benefits(content) -> str:
    betas = content["betas"]
    rows = []
    for name, of_betas in content["policies"].items():
        cells = {r["beta"]: r for r in of_betas if r["beta"] in betas}
        rows.append(
            [f"`{name}`", *(_cell(cells[b]) if b in cells else "" for b in betas)]
        )
    return table(["policy", *(f"β = {b:g}" for b in betas)], rows)


def _cell(row) -> str:
    spread = f" ± {row['benefit_std']:.2f}" if row["seeds"] > 1 else ""
    return f"{row['benefit']:.2f}{spread}"


def _paper_benefits(content) -> str:
    name, rows = content["dataset"], []
    for policy, beta, number in paper.BENEFITS.get(name, ()):
        if beta in content["betas"]:
            ours = benefit(content, policy, beta)
            rows.append([f"`{policy}` at β = {beta:g}", f"{number:.2f}", f"{ours:.2f}"])
    for beta, lead in paper.LEADS.get(name, {}).items():
        if beta in content["betas"]:
            best = max(benefit(content, p, beta) for p in paper.BASELINES)
            ours = benefit(content, "epnet", beta) - best
            text = f"lead of `epnet` over the paper's best baseline at β = {beta:g}"
            rows.append([text, f"{lead:.2f}", f"{ours:.2f}"])
    return table(["", "paper", "ours"], rows) if rows else ""


def _table_1(content) -> str:
    rows = []
    for r in content["table1"]:
        theirs = [f"{x:.2f}" for x in r["paper"]] if r["paper"] else ["", ""]
        rows.append(
            [
                f"`{r['policy']}`",
                f"{r['budget_accuracy']:.2f} ({r['rank']})",
                theirs[0],
                f"{r['accuracy']:.2f}",
                theirs[1],
                "yes" if r["complete"] else f"no, {r['share']:.2%}",
            ]
        )
    head = ["policy", "acc within budget (rank)", "paper", "acc", "paper", "completes"]
    return table(head, rows)


def _table_2(content) -> str:
    rows = []
    for i, r in enumerate(content["table2"], start=1):
        ours = r["paper"] is None
        cells = [
            f"{r['benefit']:.2f} ± {r['benefit_std']:.2f}",
            f"{100 * r['accuracy']:.2f}",
            units.shown(r["mean_cost"], content["cost_unit"]),
            f"{r['controller_macs'] / 1e3:.2f} k",
        ]
        theirs = ["", "", "", ""]
        if not ours:
            benefit_, accuracy, macs, controller = r["paper"]
            theirs = [
                f"{benefit_:.2f}",
                f"{accuracy:.2f}",
                f"{macs / 1e6:.2f} M",
                f"{controller / 1e3:.2f} k",
            ]
        both = [cell for pair in zip(cells, theirs, strict=True) for cell in pair]
        sizes = ["ours", ""] if ours else [str(list(r["f_in"])), str(list(r["f_cat"]))]
        rows.append([str(i), *sizes, *both])
    head = ["", "f_in", "f_cat", "benefit", "paper", "accuracy", "paper"]
    return table([*head, "network", "paper", "controller", "paper"], rows)


def _promises(content) -> str:
    rows, unit = [], content["cost_unit"]
    for r in content["promises"]:
        in_points = r["unit"] == "points"
        limit, validation, test = (
            f"{r[key]:.2f}" if in_points else units.shown(r[key], unit)
            for key in ("limit", "validation", "test")
        )
        cells = [r["promise"], f"{r['beta']:.3g}", limit, validation, test]
        kept = "kept" if r["kept"] else "**broken**"
        rows.append([*cells, kept, f"{r['accuracy']:.2%}", f"{r['share']:.1%}"])
    head = ["promise", "β", "limit", "validation", "test", "", "accuracy", "of full"]
    noise = [
        f"{r['promise']}, {r['p90']:.4g}" for r in content["promises"] if "p90" in r
    ]
    return (
        "β chosen on the validation images, so that with confidence 95% the promise "
        "holds on new images of the same kind (Learn-then-Test). Points lost are "
        "images that the full network gets right and EPNet wrong."
        + (_NOISE.format("; ".join(noise)) if noise else "")
        + "\n\n"
        + table(head, rows)
    )


def _learning(content) -> str:
    found = content["learning"]
    noise = found["gradient_noise"]
    steps = found["exact_steps_to_reinforce_final"]
    reached = (
        f"the exact gradient is there after {steps:,}"
        if steps is not None
        else "the exact gradient does not get there"
    )
    return (
        "Both without exploration, on training images alone. "
        f"At β = {found['beta']:g}, on validation images: after {found['steps']:,} "
        f"steps REINFORCE is at {found['reinforce_final']:.2f} ± "
        f"{found['reinforce_std']:.2f}, the exact gradient at "
        f"{found['exact_final']:.2f} ± {found['exact_std']:.2f}. What REINFORCE ends "
        f"with it first reaches after {found['reinforce_steps_to_it']:,} steps; "
        f"{reached}. On the test images the exact gradient ends at "
        f"{found['exact_test']:.2f}, REINFORCE at {found['reinforce_test']:.2f}. "
        f"At the same point (after {noise['point']} steps of exact "
        f"training, batches of {noise['batch']}) the variance of the gradient, in "
        f"units of its squared length, is {noise['exact']:.3g} exact and "
        f"{noise['reinforce']:.3g} by REINFORCE: {noise['ratio']:.1f} times as much.\n"
    )


def _exits(content) -> str:
    rows, unit = [], content["cost_unit"]
    for i, (e, profile, sure) in enumerate(
        zip(
            content["exits"],
            content["exit_profile"],
            content["calibration"],
            strict=True,
        ),
        start=1,
    ):
        left = profile["accuracy_left"]
        rows.append(
            [
                str(i),
                f"`{e['layer']}`",
                units.shown(e["cost"], unit),
                f"{profile['accuracy_all']:.2%}",
                "" if left is None else f"{left:.2%}",
                f"{profile['rate']:.2%}",
                f"{100 * sure['error']:.1f}",
            ]
        )
    head = ["exit", "after", units.words(unit)[1], "accuracy on all"]
    head += ["accuracy on those that left", "exit rate", "calibration error"]
    return table(head, rows)
