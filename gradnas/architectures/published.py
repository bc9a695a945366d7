"""Architectures that papers have published, as the texts that `Genotype.parse` and `Chain.parse`
read."""

from __future__ import annotations

# -- cells -----------------------------------------------------------------------------------------

_SHORT_NAMES = {
    "s3": "sep_conv_3x3",
    "s5": "sep_conv_5x5",
    "s7": "sep_conv_7x7",
    "d3": "dil_conv_3x3",
    "d5": "dil_conv_5x5",
    "mp": "max_pool_3x3",
    "ap": "avg_pool_3x3",
    "sk": "skip_connect",
    "c7": "conv_7x1_1x7",
}

# name: normal, its concat, reduce, its concat. A slash stands between nodes.
_CONV: dict[str, tuple[str, list[int], str, list[int]]] = {
    # NASNet-A. Zoph, Vasudevan, Shlens, Le 2018, arXiv:1707.07012, in the form of the DARTS code
    "NASNet": (
        "s5.1 s3.0 / s5.0 s3.0 / ap.1 sk.0 / ap.0 ap.0 / s3.1 sk.1",
        [2, 3, 4, 5, 6],
        "s5.1 s7.0 / mp.1 s7.0 / ap.1 s5.0 / sk.3 ap.2 / s3.2 mp.1",
        [4, 5, 6],
    ),
    # AmoebaNet-A. Real, Aggarwal, Huang, Le 2019, arXiv:1802.01548, in the form of the DARTS code
    "AmoebaNet": (
        "ap.0 mp.1 / s3.0 s5.2 / s3.0 ap.3 / s3.1 sk.1 / sk.0 ap.1",
        [4, 5, 6],
        "ap.0 s3.1 / mp.0 s7.2 / s7.0 ap.1 / mp.0 mp.1 / c7.0 s3.5",
        [3, 4, 6],
    ),
    # DARTS, first order, CIFAR-10. Liu, Simonyan, Yang 2019, arXiv:1806.09055
    "DARTS_V1": (
        "s3.1 s3.0 / sk.0 s3.1 / sk.0 s3.1 / s3.0 sk.2",
        [2, 3, 4, 5],
        "mp.0 mp.1 / sk.2 mp.0 / mp.0 sk.2 / sk.2 ap.0",
        [2, 3, 4, 5],
    ),
    # DARTS, second order, CIFAR-10. As above, figures 4 and 5
    "DARTS_V2": (
        "s3.0 s3.1 / s3.0 s3.1 / s3.1 sk.0 / sk.0 d3.2",
        [2, 3, 4, 5],
        "mp.0 mp.1 / sk.2 mp.1 / mp.0 sk.2 / sk.2 mp.1",
        [2, 3, 4, 5],
    ),
    # PC-DARTS, searched on CIFAR-10. Xu, Xie, Zhang, Chen, Qi, Tian, Xiong 2020, arXiv:1907.05737
    "PC_DARTS_cifar": (
        "s3.1 sk.0 / s3.0 d3.1 / s5.0 s3.1 / ap.0 d3.1",
        [2, 3, 4, 5],
        "s5.1 mp.0 / s5.1 s5.2 / s3.0 s3.3 / s3.1 s3.2",
        [2, 3, 4, 5],
    ),
    # PC-DARTS, searched on ImageNet. As above
    "PC_DARTS_image": (
        "sk.1 s3.0 / s3.0 sk.1 / s3.1 s3.3 / s3.1 d5.4",
        [2, 3, 4, 5],
        "s3.0 sk.1 / d5.2 mp.1 / s3.2 s3.1 / s5.0 s3.3",
        [2, 3, 4, 5],
    ),
}

# name: edges, concat
_RECURRENT: dict[str, tuple[str, list[int]]] = {
    # DARTS, first order, Penn Treebank. Liu, Simonyan, Yang 2019, arXiv:1806.09055
    "DARTS_V1_recurrent": (
        "relu.0 / relu.1 / tanh.2 / relu.3 / relu.4 / identity.1 / relu.5 / relu.1",
        [1, 2, 3, 4, 5, 6, 7, 8],
    ),
    # DARTS, second order, Penn Treebank. As above, figure 6
    "DARTS_V2_recurrent": (
        "sigmoid.0 / relu.1 / relu.1 / identity.1 / tanh.2 / sigmoid.5 / tanh.3 / relu.5",
        [1, 2, 3, 4, 5, 6, 7, 8],
    ),
    # ENAS, Penn Treebank. Pham, Guan, Zoph, Le, Dean 2018, arXiv:1802.03268, in the form of the
    # DARTS code
    "ENAS": (
        "tanh.0 / tanh.1 / relu.1 / tanh.3 / tanh.3 / relu.3 / "
        "relu.4 / relu.7 / relu.8 / relu.8 / relu.8",
        [2, 5, 6, 9, 10, 11],
    ),
}

_ALIASES = {"DARTS": "DARTS_V2", "DARTS_recurrent": "DARTS_V2_recurrent"}


def _edges(short: str) -> list[tuple[str, int]]:
    """'s3.1 sk.0 / d3.2 mp.0' as edges; a name that is not an abbreviation stands for itself."""
    edges = []
    for word in short.replace("/", " ").split():
        name, predecessor = word.split(".")
        edges.append((_SHORT_NAMES.get(name, name), int(predecessor)))
    return edges


def _genotype_texts() -> dict[str, str]:
    texts = {}
    for name, (normal, normal_concat, reduce, reduce_concat) in _CONV.items():
        texts[name] = (
            f"Genotype(normal={_edges(normal)}, normal_concat={normal_concat}, "
            f"reduce={_edges(reduce)}, reduce_concat={reduce_concat})"
        )
    for name, (edges, concat) in _RECURRENT.items():
        texts[name] = f"Genotype(recurrent={_edges(edges)}, concat={concat})"
    for alias, name in _ALIASES.items():
        texts[alias] = texts[name]
    return texts


GENOTYPES = _genotype_texts()


# -- chains ----------------------------------------------------------------------------------------


def _chain_text(short: str) -> str:
    """'53 00 | 76' as a chain's text: kernel and expansion of a block, 00 for one removed."""
    words = []
    for word in short.split():
        if word == "00":
            words.append("zero")
        elif word == "|":
            words.append(word)
        else:
            kernel, expansion = word
            words.append(f"mb{expansion}_k{kernel}")
    return " ".join(words)


_MOBILE = "53 33 00 00 | 73 33 53 53 | 76 53 53 53 | 56 53 53 53 | 76 76 73 73 | 76"
# Cai, Zhu, Han 2019, arXiv:1812.00332, figure 5 and the authors' released network descriptions
CHAINS = {
    "proxyless_gpu": _chain_text(
        "53 00 00 00 | 73 00 00 33 | 76 00 00 53 | 56 00 33 53 | 76 76 76 56 | 76"
    ),
    "proxyless_cpu": _chain_text(
        "36 33 33 33 | 36 33 33 53 | 36 00 00 33 | 56 33 33 33 | 56 53 53 33 | 56"
    ),
    "proxyless_mobile": _chain_text(_MOBILE),
    "proxyless_mobile_14": _chain_text(_MOBILE),
}
