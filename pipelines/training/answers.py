"""From paragraphs and questions to the folder of a model that answers: an index, vectors, and a judge."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from contracts.answering import FEATURES, Answerer, AnsweringSpec, Candidate, JudgeSpec
from contracts.cross_encoder import GRAPH as RERANKER
from contracts.cross_encoder import TOKENIZER as JOINS
from contracts.cross_encoder import CrossEncoder, RerankerSpec
from contracts.engines.answers import read_model, write_model
from contracts.errors import PlatformError
from contracts.lexical import Lexical, lexical_index
from contracts.nearest import write_nearest
from contracts.problems.answering import Passage, listed
from contracts.search_terms import terms
from contracts.text_vectors import ENCODER, TOKENIZER, VectorsSpec, unit
from pipelines.evaluation.answering import Wanted, wanted_text
from pipelines.evaluation.measures import evenly
from pipelines.task import Progress
from pipelines.training.passages import passages_of, searched

if TYPE_CHECKING:
    import pandas as pd


_ASKED = 200  # questions whose searches say how wide an index of vectors must search
_NEAREST = 200  # that such a search asks for
_UNITS, _DECAY, _FEWEST = 8, 1.0, 20  # of the judge, and pairs of a kind that it is learned from
_FOLDS = 5
_SEEN, _MEANS, _OTHERS = (
    3,
    0.3,
    8,
)  # questions that have two terms, how far one must stand for the other, and how many do
_EASY = 0.5  # threshold where no question tells another
# A passage whose best sentence has most words of the question.
BY_WORDS = JudgeSpec(
    hidden=[[1.0 if name == "sentence" else 0.0 for name in FEATURES]], hidden_bias=[-0.6], output=[6.0], bias=0.0
)


def train_answers(dataset: Path, config: Any, out: Path, cache: Path, progress: Progress) -> dict[str, Any]:
    """Index all paragraphs, fit the judge on the questions of the training part, and choose its threshold by the
    validation part.

    Args:
        config: an `AnswersConfig` of `pipelines.recipes.answers.settings`.

    Returns what `pipelines.task.TaskConfig.train` says.
    """
    import pandas as pd

    paragraphs = pd.read_parquet(dataset / "paragraphs.parquet")
    found = passages_of(paragraphs, config.passages.words)
    progress(1, 4, doing="index", passages=len(found))
    texts = [searched(one) for one in found]
    lexical = lexical_index([terms(text) for text in texts])
    vectors, projection, spec, revision = _vectors(texts, lexical, config.vectors, config.seed, out, cache, progress)
    progress(2, 4, doing="vectors", dimensions=spec.dimensions)
    answers = config.answer
    made = AnsweringSpec(
        k=min(answers.k, answers.longest), longest=answers.longest, pool=answers.pool,
        judged=min(answers.judged, answers.longest), rerank=answers.rerank,
        sentences=answers.sentences, vectors=spec, judge=BY_WORDS, threshold=0.0,
        reranker=RerankerSpec(max_tokens=answers.reranker.max_tokens),
    )  # fmt: skip
    if answers.rerank == "onnx":
        take_reranker(answers.reranker.source, out, made.reranker)
    write_model(out, made, found, lexical, vectors, projection)
    if vectors is not None and len(found) > config.index.above:
        asked = [vectors[at] for at in evenly(len(found), _ASKED)]
        threads = int(os.environ.get("OMP_NUM_THREADS") or 0)
        write_nearest(out, vectors, asked, _NEAREST, config.index.recall, threads)
    model = read_model(out)
    parts = [pd.read_parquet(dataset / f"{name}.parquet") for name in ("train", "valid")]
    means = meanings(model, parts[0])
    features, truth = _pairs(model, parts[0], progress)
    judge, history = fit_judge(features, truth, config.seed)
    progress(3, 4, doing="judge", pairs=len(truth))
    judged = replace(model, spec=made.model_copy(update={"judge": judge, "means": means}))
    threshold, curve = choose_threshold(judged, parts[1], answers.wrong_costs)
    history = [{**one, "threshold": threshold} for one in history]
    final = judged.spec.model_copy(update={"threshold": threshold})
    write_model(out, final, found, lexical, vectors, projection)
    progress(4, 4, threshold=threshold)
    output = {
        "problem": "answering", "k": final.k, "longest": final.longest, "passages": len(found),
        "documents": len({one.document for one in found}), "threshold": threshold,
    }  # fmt: skip
    parameters: dict[str, Any] = {
        "vectors": spec.kind, "dimensions": spec.dimensions, "passages": len(found), "terms": len(lexical.vocabulary),
        "threshold": round(threshold, 6), **curve,
    }  # fmt: skip
    if revision:
        parameters["encoder_revision"] = revision
    tolerance = 0.02 if spec.kind == "onnx" else 1e-4
    return {
        "engine": "answers", "output": output, "decision": None, "history": history, "parameters": parameters,
        "device": "cpu", "tolerance": tolerance,
    }  # fmt: skip


def _vectors(
    texts: Sequence[str], lexical: Lexical, config: Any, seed: int, out: Path, cache: Path, progress: Progress
) -> tuple[NDArray[np.float32] | None, NDArray[np.float32] | None, VectorsSpec, str]:
    """Vectors of the passages, the projection of terms, what turns questions into vectors, and an encoder's version."""
    if config.kind == "onnx":
        return _encoded(texts, config, out, cache, progress)
    if config.kind == "terms" and len(lexical.vocabulary) > 2 and len(texts) > 2:
        vectors, projection = term_vectors(lexical, config.dimensions, config.terms, seed)
        return vectors, projection, VectorsSpec(kind="terms", dimensions=projection.shape[1]), ""
    return None, None, VectorsSpec(kind="none"), ""


def term_vectors(
    lexical: Lexical, dimensions: int, most: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Vectors of passages, shape (passages, dimensions), and of terms, by a truncated singular value decomposition.

    A matrix of the terms' weights, with the commonest `most` terms that two passages have at least.
    """
    from scipy.sparse import csc_matrix
    from sklearn.decomposition import TruncatedSVD

    indptr, indices, values = (lexical.arrays[f"bm25.{name}"] for name in ("indptr", "indices", "weights"))
    matrix = csc_matrix((values, indices, indptr), shape=(lexical.passages, len(lexical.vocabulary))).tocsr()
    having = np.diff(indptr)
    kept = np.argsort(-having, kind="stable")[:most]
    kept = np.sort(kept[having[kept] > 1])
    if len(kept) < 3:
        kept = np.arange(len(having))
    some = matrix[:, kept]
    size = max(2, min(dimensions, min(some.shape) - 1))
    model = TruncatedSVD(size, random_state=seed, n_iter=4).fit(some)
    projection = np.zeros((len(lexical.vocabulary), size), dtype=np.float32)
    projection[kept] = model.components_.T * np.asarray(lexical.arrays["bm25.idf"])[kept, None]
    vectors = unit(some @ model.components_.T)
    return vectors, projection


def _encoded(
    texts: Sequence[str], config: Any, out: Path, cache: Path, progress: Progress
) -> tuple[NDArray[np.float32], None, VectorsSpec, str]:
    """Vectors by an encoder, whose files go with the model."""
    from pipelines.training.encoder import encode, read_encoder
    from pipelines.training.tokens import tokenise

    encoder = read_encoder(config.encoder, cache)
    ids = tokenise(encoder.tokenizer, list(texts), config.encoder.max_tokens)
    vectors = unit(encode(encoder, ids, config.encoder.max_tokens, 0, progress))
    out.mkdir(parents=True, exist_ok=True)
    shutil.copy(encoder.graph, out / ENCODER)
    encoder.tokenizer.save(str(out / TOKENIZER), pretty=False)
    spec = VectorsSpec(
        kind="onnx", dimensions=vectors.shape[1], max_tokens=config.encoder.max_tokens, pad_id=encoder.pad_id
    )
    return vectors, None, spec, encoder.revision


def take_reranker(source: str, out: Path, spec: RerankerSpec) -> None:
    """Copy a cross-encoder beside the index, and try it.

    Raises:
        PlatformError: ``code="bad_reranker"``: nothing is there, a file is missing, or it does not score a pair.
    """
    from pipelines.io.weights import weights_here

    fix = "give a folder with model.onnx and tokenizer.json: --set answer.reranker.source=FOLDER"
    if not source:
        raise PlatformError("answer.rerank is onnx, and no reranker is named", fix=fix, code="bad_reranker")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with weights_here(source, ("model.onnx", "tokenizer.json")) as found:
            for name, ours in (("model.onnx", RERANKER), ("tokenizer.json", JOINS)):
                if not (found.folder / name).is_file():
                    raise ValueError(f"{name} is missing")
                shutil.copyfile(found.folder / name, out / ours)
        CrossEncoder(out, spec).scores("What does it weigh?", ["It weighs 4 kg.", "word " * spec.max_tokens])
    except (OSError, ValueError) as err:
        raise PlatformError(f"no usable reranker: {source}", detail=str(err), fix=fix, code="bad_reranker") from err


def _candidates(model: Answerer, rows: pd.DataFrame, progress: Progress | None = None) -> list[list[Candidate]]:
    found = []
    for at, (question, labels) in enumerate(zip(rows["question"], rows["labels"], strict=True)):
        found.append(model.candidates(model.question(question), listed(labels)))
        if progress and at % 200 == 199:
            progress(at + 1, len(rows), doing="questions")
    return found


def has_evidence(passage: Passage, wanted: Wanted) -> bool:
    """Whether a passage answers a question."""
    return bool(wanted.evidence) and wanted_text(wanted.evidence) in wanted_text(passage.text)


def _pairs(model: Answerer, rows: pd.DataFrame, progress: Progress) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """What the judge knows of questions and passages, shape (pairs, features), and whether the passage answers it.

    What words mean is learned from the other questions each time, as it is of questions that nobody asked yet.
    """
    features, truth = [], []
    documents = np.array([Wanted.read(label).document or str(at) for at, label in enumerate(rows["label"])])
    _, groups = np.unique(documents, return_inverse=True)
    for fold in range(_FOLDS):
        mine = groups % _FOLDS == fold
        known = model.spec.model_copy(update={"means": meanings(model, rows[~mine])})
        for found, label in zip(_candidates(replace(model, spec=known), rows[mine]), rows["label"][mine], strict=True):
            wanted = Wanted.read(label)
            features += [one.features for one in found]
            truth += [has_evidence(one.passage, wanted) for one in found]
        progress(fold + 1, _FOLDS, doing="judge")
    return np.array(features).reshape(-1, len(FEATURES)), np.array(truth, dtype=bool)


def meanings(model: Answerer, rows: pd.DataFrame) -> dict[str, dict[str, float]]:
    """Of terms of questions, which terms their answers have, by normalised pointwise mutual information.

    A. Berger, J. Lafferty: Information retrieval as statistical translation, 1999; G. Bouma, 2009, for the measure.
    Pairs that stand in fewer than `_SEEN` questions, or are no likelier than by chance, are left out.
    """
    asked, said = Counter[str](), Counter[str]()
    both = Counter[tuple[str, str]]()
    count = 0
    for question, label in zip(rows["question"], rows["label"], strict=True):
        wanted = Wanted.read(label)
        if not wanted.evidence:
            continue
        count += 1
        mine, theirs = set(terms(question)), set(terms(wanted.evidence))
        asked.update(mine)
        said.update(theirs)
        both.update((one, other) for one in mine for other in theirs if one != other)
    found: dict[str, dict[str, float]] = {}
    for (one, other), seen in both.items():
        if seen < _SEEN or seen == count:
            continue
        chance = seen / count
        value = np.log(chance * count * count / (asked[one] * said[other])) / -np.log(chance)
        if value >= _MEANS:
            found.setdefault(one, {})[other] = round(min(1.0, float(value)), 4)
    return {
        one: dict(sorted(others.items(), key=lambda pair: (-pair[1], pair[0]))[:_OTHERS])
        for one, others in sorted(found.items())
    }


def fit_judge(
    features: NDArray[np.float64], truth: NDArray[np.bool_], seed: int
) -> tuple[JudgeSpec, list[dict[str, Any]]]:
    """A network of `_UNITS` hidden units, and its loss; without enough pairs of both kinds, one that counts words."""
    if min(truth.sum(), (~truth).sum()) < _FEWEST:
        return BY_WORDS, [{"pairs": len(truth)}]
    from sklearn.neural_network import MLPClassifier

    middle, scale = features.mean(axis=0), np.maximum(features.std(axis=0), 1e-6)
    options = {"activation": "tanh", "solver": "lbfgs", "max_iter": 2000, "random_state": seed}
    fitted: Any = MLPClassifier((_UNITS,), alpha=_DECAY, **options).fit((features - middle) / scale, truth)
    (hidden, output), (hidden_bias, bias) = fitted.coefs_, fitted.intercepts_
    inside = hidden.T / scale
    judge = JudgeSpec(
        hidden=inside.tolist(),
        hidden_bias=(hidden_bias - inside @ middle).tolist(),
        output=output[:, 0].tolist(),
        bias=float(bias[0]),
    )
    return judge, [{"pairs": len(truth), "loss": float(fitted.loss_)}]


def choose_threshold(model: Answerer, rows: pd.DataFrame, wrong_costs: float) -> tuple[float, dict[str, float]]:
    """The confidence from which on a question is answered, by questions that chose nothing else.

    It is where right answers, less `wrong_costs` times the wrong ones, are most: those of the wrong passage, and those
    of what nothing answers; each of the two kinds of questions counts as a whole.
    """
    chances, right, answerable = [], [], []
    for question, found, label in zip(rows["question"], _candidates(model, rows), rows["label"], strict=True):
        wanted = Wanted.read(label)
        values = [model.spec.judge.chance(one.features) for one in found]
        first = model.order(model.question(question), found, values)[0] if values else 0
        chances.append(values[first] if values else 0.0)
        right.append(bool(values) and has_evidence(found[first].passage, wanted))
        answerable.append(bool(wanted.evidence))
    chance, good, can = np.array(chances), np.array(right, dtype=bool), np.array(answerable, dtype=bool)
    if not can.any():
        return _EASY, {}
    edges = np.unique(chance)
    best, value = _EASY, -np.inf
    for limit in [_EASY, *((edges[1:] + edges[:-1]) / 2).tolist()]:
        said = chance >= limit
        wrong = float((said & ~good)[can].mean()) + (float(said[~can].mean()) if (~can).any() else 0.0)
        gain = float((said & good)[can].mean()) - wrong_costs * wrong
        if gain > value + 1e-12:
            best, value = float(limit), gain
    return best, {"valid_answered": round(float((chance >= best)[can].mean()), 4)}
