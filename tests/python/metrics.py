"""Recorded expectations for deltaic-eval's metrics, by scikit-learn, SciPy, NumPy, lm-evaluation-harness and a ChaCha8 written from RFC 8439.

    python tests/python/metrics.py > crates/eval/tests/data/metrics.json

Numbers that JSON has not are the texts "inf", "-inf", "nan". What the libraries leave undefined follows evaluation.md: F1, Matthews 0; a correlation
with a constant side 0 (SciPy: NaN).
"""
import itertools
import json
import math
import warnings

import numpy as np
from lm_eval.api import metrics as harness
from scipy import stats
from sklearn import metrics as sk

warnings.simplefilter("ignore")
RNG = np.random.default_rng(11)


def plain(value):
    """A value as JSON has it."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(inner) for inner in value]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else str(float(value))
    return value


def chacha8(seed, stream):
    """The 32-bit words of ChaCha with 8 rounds, 64-bit counter and stream, the key a 64-bit seed and zeros."""
    def rotate(x, n):
        return ((x << n) | (x >> (32 - n))) & 0xFFFFFFFF

    constants = [int.from_bytes(b"expand 32-byte k"[i:i + 4], "little") for i in range(0, 16, 4)]
    key = [seed & 0xFFFFFFFF, seed >> 32, 0, 0, 0, 0, 0, 0]
    for counter in itertools.count():
        start = constants + key + [counter & 0xFFFFFFFF, counter >> 32, stream & 0xFFFFFFFF, stream >> 32]
        x = list(start)
        for _ in range(4):
            for a, b, c, d in [(0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
                               (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)]:
                x[a] = (x[a] + x[b]) & 0xFFFFFFFF; x[d] = rotate(x[d] ^ x[a], 16)
                x[c] = (x[c] + x[d]) & 0xFFFFFFFF; x[b] = rotate(x[b] ^ x[c], 12)
                x[a] = (x[a] + x[b]) & 0xFFFFFFFF; x[d] = rotate(x[d] ^ x[a], 8)
                x[c] = (x[c] + x[d]) & 0xFFFFFFFF; x[b] = rotate(x[b] ^ x[c], 7)
        yield from ((a + b) & 0xFFFFFFFF for a, b in zip(x, start))


def resample(items, seed, index):
    """A set of items by Lemire's method on those words."""
    words, chosen, least = chacha8(seed, index), [], 2**32 % items
    while len(chosen) < items:
        product = next(words) * items
        if product % 2**32 >= least:
            chosen.append(product >> 32)
    return np.array(chosen)


def matthews(gold, predicted):
    return float(sk.matthews_corrcoef(gold, predicted))


def f1(gold, predicted):
    return float(sk.f1_score(gold, predicted, zero_division=0))


def correlation(function, gold, predicted):
    if len(gold) < 2 or len(set(gold)) == 1 or len(set(predicted)) == 1:
        return 0.0
    return float(function(gold, predicted).statistic)


def label_cases():
    for n, gold_rate, predicted_rate in [(1, 0.5, 0.5), (2, 0.5, 0.5), (7, 0.3, 0.6), (50, 0.5, 0.5), (400, 0.7, 0.6), (1000, 0.01, 0.02)]:
        for _ in range(6):
            yield (RNG.random(n) < gold_rate).astype(int), (RNG.random(n) < predicted_rate).astype(int)
    for n in (1, 20):  # one class, constant predictions, all wrong
        for gold, predicted in itertools.product((0, 1), repeat=2):
            yield np.full(n, gold), np.full(n, predicted)
    mixed = (RNG.random(30) < 0.4).astype(int)
    yield from [(mixed, np.zeros(30, int)), (mixed, np.ones(30, int)), (np.ones(30, int), mixed), (mixed, mixed), (mixed, 1 - mixed)]


def score_cases():
    for n in (2, 3, 10, 200):
        for _ in range(5):
            gold = np.round(RNG.random(n) * 5, 1)  # ties
            yield gold, gold + RNG.normal(size=n)
            yield gold, np.round(gold + RNG.normal(size=n))
    x = RNG.normal(size=40)
    yield from [(x, x), (x, -x), (x, np.full(40, 2.5)), (np.zeros(40), x), (np.array([1.0]), np.array([2.0]))]
    yield from [(x * 1e200, x**3 * 1e-200), (x + 1e6, x**2 + 1e6), (x, np.where(x > 1, np.inf, np.where(x < -1, -np.inf, x)))]


def choice_cases():
    texts = ["yes", "no", "a longer answer", "naïve", "数学の答え", "🙂🙂", "x"]
    for _ in range(60):
        count = int(RNG.integers(2, 6))
        chosen = [texts[i] for i in RNG.integers(0, len(texts), count)]
        lls = np.round(-RNG.random(count) * 20, int(RNG.integers(0, 6)))  # rounded to 0 digits: ties
        if RNG.random() < 0.2:
            lls[int(RNG.integers(count))] = -np.inf
        if RNG.random() < 0.2:
            lls = lls - 2000.0
        tokens, truths = RNG.integers(1, 6, count), RNG.random(count) < 0.5
        probabilities = np.exp(lls - np.max(lls))
        yield {
            "texts": chosen, "log_likelihoods": lls, "tokens": tokens, "truths": truths,
            "acc": np.argmax(lls), "acc_norm": np.argmax(lls / np.array([float(len(text)) for text in chosen])),
            "acc_bytes": np.argmax(lls / np.array([float(len(text.encode())) for text in chosen])), "acc_token": np.argmax(lls / tokens),
            "mass": probabilities[truths].sum() / probabilities.sum(),
        }


def bootstrap_case(n, seed):
    """Standard errors over 40 resamples, by the libraries' metrics on the resampled items."""
    gold, predicted = (RNG.random(n) < 0.6).astype(int), (RNG.random(n) < 0.5).astype(int)
    predicted = np.where(RNG.random(n) < 0.6, gold, predicted)
    other = np.where(RNG.random(n) < 0.5, gold, 1 - gold)
    scores, guesses = np.round(RNG.random(n) * 5, 1), RNG.normal(size=n)
    guesses = guesses + scores
    sets = [resample(n, seed, index) for index in range(40)]

    def deviation(statistic):
        return np.std([statistic(chosen) for chosen in sets], ddof=1)

    def mrpc(labels):
        return lambda chosen: (np.mean(gold[chosen] == labels[chosen]) + f1(gold[chosen], labels[chosen])) / 2

    every = np.arange(n)
    differences = [mrpc(predicted)(chosen) - mrpc(other)(chosen) for chosen in sets]
    at_most, at_least = sum(d <= 0 for d in differences), sum(d >= 0 for d in differences)
    return {
        "seed": seed, "first_sets": sets[:3], "gold": gold, "predicted": predicted, "other": other, "scores": scores, "guesses": guesses,
        "f1": deviation(lambda c: f1(gold[c], predicted[c])), "matthews": deviation(lambda c: matthews(gold[c], predicted[c])),
        "pearson": deviation(lambda c: correlation(stats.pearsonr, scores[c], guesses[c])),
        "spearman": deviation(lambda c: correlation(stats.spearmanr, scores[c], guesses[c])), "mrpc": deviation(mrpc(predicted)),
        "accuracy": harness.mean_stderr([float(g == p) for g, p in zip(gold, predicted)]),
        "difference": mrpc(predicted)(every) - mrpc(other)(every), "difference_stderr": np.std(differences, ddof=1),
        "p": min(1.0, 2 * (1 + min(at_most, at_least)) / 41),
    }


def perplexity_case(n):
    nll, words, bytes_ = RNG.gamma(2.0, 50.0, n), RNG.integers(1, 80, n), RNG.integers(80, 400, n)
    # The delta method by the function's derivatives (numerical), with the sample covariance of the two means.
    def delta(function, lengths):
        means, covariance = [nll.mean(), lengths.mean()], np.cov(nll, lengths) / n
        steps = [1e-6 * mean for mean in means]
        gradient = [(function(*(m + s * (i == j) for j, m in enumerate(means))) - function(*(m - s * (i == j) for j, m in enumerate(means)))) / (2 * s)
                    for i, s in enumerate(steps)]
        return math.sqrt(np.array(gradient) @ covariance @ np.array(gradient))

    pairs = lambda lengths: list(zip(-nll, lengths))
    return {
        "log_likelihoods": -nll, "words": words, "bytes": bytes_,
        "nll": nll.sum() / words.sum(), "word_perplexity": harness.weighted_perplexity(pairs(words)),
        "byte_perplexity": harness.weighted_perplexity(pairs(bytes_)), "bits_per_byte": harness.bits_per_byte(pairs(bytes_)),
        "nll_stderr": delta(lambda a, b: a / b, words), "word_perplexity_stderr": delta(lambda a, b: math.exp(a / b), words),
        "bits_per_byte_stderr": delta(lambda a, b: a / b / math.log(2), bytes_),
    }


def main():
    pages = ["", " ", "a", "a b", " a\n\nb ", "a\u00a0b", "a\u200bb", "a\x1cb\x1f", "\u3000x\u2028y\x85", "one  two\tthree\n"]
    import re
    sign_tests = [(0, 0), (0, 1), (1, 1), (0, 6), (3, 9), (10, 30), (40, 41), (100, 180), (2, 2000), (6000, 6300)]
    json.dump(plain({
        "labels": [{"gold": g, "predicted": p, "accuracy": sk.accuracy_score(g, p), "f1": f1(g, p), "matthews": matthews(g, p)} for g, p in label_cases()],
        "scores": [{"gold": g, "predicted": p, "ranks": stats.rankdata(p), "pearson": correlation(stats.pearsonr, g, p) if np.all(np.isfinite(p)) else math.nan,
                    "spearman": correlation(stats.spearmanr, g, p)} for g, p in score_cases()],
        "choices": list(choice_cases()),
        "bootstraps": [bootstrap_case(n, seed) for n, seed in [(2, 0), (25, 7), (300, 2**63 + 5)]],
        "perplexities": [perplexity_case(n) for n in (2, 5, 60)],
        "mcnemar": [[b, c, stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0] for b, c in sign_tests],
        "words": [[page, len(re.split(r"\s+", page))] for page in pages],
    }), __import__("sys").stdout, ensure_ascii=False, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main()
