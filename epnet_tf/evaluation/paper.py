"""The paper's numbers (section 5), for printing them beside ours."""

# Table 1: (accuracy within the budget, accuracy without one), per cent. What the paper
# calls BranchyNet-0.95 and -0.6 is the threshold that meets EPNet's budget.
TABLE_1 = {
    "maxmin": {
        "epnet": (95.51, 95.51),
        "branchynet-0.2": (67.65, 93.71),
        "branchynet-0.3": (70.82, 93.03),
        "branchynet-oracle": (84.13, 84.13),
        "softmax-gate-0.2": (87.76, 87.76),
        "softmax-gate-0.01": (61.53, 94.59),
        "resnet": (46.86, 95.69),
    },
    "multiscale": {
        "epnet": (88.68, 88.68),
        "branchynet-0.2": (61.09, 88.41),
        "branchynet-0.3": (68.11, 87.88),
        "branchynet-oracle": (85.68, 85.68),
        "softmax-gate-0.2": (85.38, 85.38),
        "softmax-gate-0.01": (49.88, 88.69),
        "resnet": (32.14, 89.92),
    },
    "cifar10": {
        "epnet": (88.61, 88.61),
        "branchynet-0.2": (86.54, 88.35),
        "branchynet-0.3": (87.83, 87.83),
        "softmax-gate-0.1": (87.53, 87.53),
        "softmax-gate-0.01": (71.72, 88.76),
        "resnet": (47.82, 89.89),
    },
}

# Table 2 (CIFAR-10, β = 5e-7): f_in, f_cat, benefit, accuracy in per cent, MACs of the
# whole network, MACs of a controller.
TABLE_2 = (
    ((10, 10, 10), (10, 10, 1), 82.40, 88.42, 1.203e7, 0.107e4),
    ((50, 10, 10), (50, 50, 1), 83.17, 88.45, 1.054e7, 0.724e4),
    ((100, 10, 10), (100, 100, 50, 1), 83.51, 88.61, 1.019e7, 2.419e4),
    ((), (100, 100, 50, 1), 82.99, 88.37, 1.074e7, 1.700e4),
)

# Benefits that the text of 5.3 gives as numbers (Figure 6): policy, β, benefit.
BENEFITS = {
    "multiscale": (
        ("epnet", 2e-7, 85.25),
        ("branchynet-oracle", 2e-7, 83.48),
        ("epnet", 1e-6, 74.68),
        ("softmax-gate-oracle", 1e-6, 71.01),
    ),
    "cifar10": (("epnet", 5e-7, 83.51),),
}

# How far the text says EPNet is above its best baseline at some β, points.
LEADS = {
    "maxmin": {2e-7: 3.11, 1e-6: 10.17},
    "multiscale": {2e-7: 1.77, 1e-6: 3.67},
    "cifar10": {5e-7: 0.2, 5e-6: 1.2},
}

# Those it is compared with there.
BASELINES = (
    "resnet",
    "branchynet-0.2",
    "branchynet-0.3",
    "branchynet-oracle",
    "softmax-gate-0.2",
    "softmax-gate-0.1",
    "softmax-gate-0.01",
    "softmax-gate-oracle",
)

# Share of the full network that EPNet spent in Table 1, from ResNet's rows: it answers
# that share of the images, and the rest by chance.
SHARES = {"maxmin": 0.43, "multiscale": 0.277, "cifar10": 0.474}
