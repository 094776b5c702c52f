"""The U-Net of diffusers by flow matching: its graph, weights from a folder, and folders that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contracts.errors import PlatformError
from tests.late import needs

needs("torch", "diffusers")


def recipe(weights: str = "") -> Any:
    from pipelines.recipes.drawing.unet2d import Unet2dModel, Unet2dRecipe
    from pipelines.recipes.image.base import ImageConfig

    image = ImageConfig(width=8, height=8, mode="L")
    return Unet2dRecipe(recipe="unet2d", image=image, model=Unet2dModel(widths=(8, 16), weights=weights))


def test_its_graph_says_what_it_says_and_weights_of_a_folder_are_those_that_were_saved(tmp_path: Path) -> None:
    import onnxruntime as ort
    import torch

    from pipelines.training.flow_network import export

    torch.manual_seed(1)
    network = recipe().network(3).eval()
    images, times, labels = torch.randn(2, 1, 8, 8), torch.tensor([0.1, 0.8]), torch.tensor([0, 3])
    with torch.no_grad():
        wanted = network(images, times, labels).numpy()
    network.inner.save_pretrained(tmp_path, safe_serialization=True)
    again = recipe(str(tmp_path)).network(3).eval()
    with torch.no_grad():
        np.testing.assert_array_equal(again(images, times, labels).numpy(), wanted)
    session = ort.InferenceSession(export(network, (1, 8, 8)))
    given = {"pixels": images.numpy(), "time": times.numpy(), "label": labels.numpy()}
    np.testing.assert_allclose(session.run(["direction"], given)[0], wanted, atol=2e-5)
    with pytest.raises(PlatformError, match="of another model") as refused:
        recipe(str(tmp_path)).network(5)
    assert refused.value.code == "bad_weights"


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match="no usable weights") as refused:
        recipe(str(tmp_path)).network(3)
    assert "as diffusers saves it" in refused.value.fix


def tiny(folder: Path, names: dict[int, str]) -> None:
    """A class-conditional pipeline with random weights, which draws 16x16 pixels."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(0)
    transformer: Any = DiTTransformer2DModel(
        sample_size=16, num_layers=2, patch_size=4, attention_head_dim=8, num_attention_heads=2, in_channels=4,
        out_channels=8, num_embeds_ada_norm=1000, norm_type="ada_norm_zero", norm_elementwise_affine=False,
        activation_fn="gelu-approximate",
    )  # fmt: skip
    for one in transformer.parameters():  # else its last layer answers the same to every class
        torch.nn.init.normal_(one, std=0.3)
    made: Any = DiTPipeline(transformer, AutoencoderKL(), DDIMScheduler())
    made.save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "id2label": names}))


def of_text(folder: Path) -> None:
    """A pipeline from text to image, as Stable Diffusion is, with random weights, which draws 16x16 pixels."""
    import torch
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    letters = [chr(at) for at in range(ord("a"), ord("z") + 1)]
    words = [*letters, *(f"{one}</w>" for one in letters), "<|startoftext|>", "<|endoftext|>"]
    (folder / "words").mkdir(parents=True)
    (folder / "words" / "vocab.json").write_text(json.dumps({word: at for at, word in enumerate(words)}))
    (folder / "words" / "merges.txt").write_text("#version: 0.2\n")
    tokenizer: Any = CLIPTokenizer.from_pretrained(str(folder / "words"), model_max_length=16)
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=16, bos_token_id=len(words) - 2, eos_token_id=len(words) - 1, pad_token_id=1,
    )  # fmt: skip
    unet: Any = UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, block_out_channels=(8, 16), layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"), up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16, attention_head_dim=4, norm_num_groups=4,
    )  # fmt: skip
    for one in unet.parameters():
        torch.nn.init.normal_(one, std=0.3)
    vae = AutoencoderKL(
        block_out_channels=(8, 8), norm_num_groups=4, down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    made: Any = StableDiffusionPipeline(
        vae, CLIPTextModel(config), tokenizer, unet, DDIMScheduler(), None, None, requires_safety_checker=False
    )
    made.save_pretrained(folder / "pipeline")


def test_a_pipeline_of_text_takes_any_text(tmp_path: Path) -> None:
    import pandas as pd

    from contracts.drawing_engine import FlaggedError, Wish
    from contracts.engine import UnreadableError
    from contracts.engines import load_engine
    from contracts.problems.image import TEXT
    from pipelines.evaluation.scoring import fields_of, provisional
    from pipelines.recipes.drawing.pretrained import PipelineModel, PretrainedDrawing
    from pipelines.recipes.image.base import ImageConfig
    from pipelines.tasks import get_task

    of_text(tmp_path)
    pd.DataFrame({"label": ["dog", "cat"]}).to_parquet(tmp_path / "train.parquet")
    task, model = get_task("drawings"), PipelineModel(weights=str(tmp_path / "pipeline"), prompt="an old {}")
    config = PretrainedDrawing(recipe="pretrained", image=ImageConfig(width=16, height=16), model=model)
    out = tmp_path / "candidate" / "model"
    trained = config.train(task, tmp_path, out, tmp_path, lambda *_, **__: None)
    assert trained["output"]["any_text"]
    engine: Any = load_engine(provisional(out.parent, fields_of(task, config, trained)), device="cpu")
    columns = {
        "prompt": np.array(["cat", "an old cat", "a lion", "a dog and a cat"], dtype=object),
        "seed": np.zeros(4), "steps": np.full(4, 2), "guidance": np.full(4, 2.0),
    }  # fmt: skip
    cat, said, lion, both = engine.predict(columns)
    assert [one.label for one in (cat, said, lion, both)] == ["cat", "cat", TEXT, TEXT]
    assert (cat.pixels == said.pixels).all(), "a class is asked for by the recipe's prompt"
    assert (lion.pixels != cat.pixels).any()
    assert lion.pixels.shape == (16, 16, 3)
    assert lion == engine.draw([Wish(label=TEXT, seed=0, steps=2, guidance=2.0, prompt="a lion")])[0]
    for prompt, text in ((" ", "says nothing"), ("a lion with a very long tail", "has 24 tokens")):
        with pytest.raises(UnreadableError, match=text):
            engine.predict({**columns, "prompt": np.array([prompt] * 4, dtype=object)})
    pipeline = engine._pipeline

    class Flagging:
        scheduler = pipeline.scheduler

        def __call__(self, **asked: Any) -> Any:
            found = pipeline(**asked)
            found.nsfw_content_detected = [True]
            return found

    engine._pipeline = Flagging()
    with pytest.raises(FlaggedError):
        engine.draw([Wish(label="cat", seed=0, steps=1, guidance=1.0)])


def test_a_pipeline_of_a_folder_is_published_and_draws_by_seed_and_class(tmp_path: Path) -> None:
    import pandas as pd

    from contracts.drawing_engine import Wish
    from contracts.engines import load_engine
    from pipelines.evaluation.scoring import fields_of, provisional
    from pipelines.recipes.drawing.pretrained import PipelineModel, PretrainedDrawing
    from pipelines.recipes.image.base import ImageConfig
    from pipelines.tasks import get_task

    tiny(tmp_path / "given", {3: "cat", 5: "dog"})
    pd.DataFrame({"label": ["dog", "cat"]}).to_parquet(tmp_path / "train.parquet")

    def made(side: int, mode: Any = "RGB", **numbers: int) -> Any:
        model = PipelineModel(weights=str(tmp_path / "given"), numbers=numbers)
        return PretrainedDrawing(
            recipe="pretrained", image=ImageConfig(width=side, height=side, mode=mode), model=model
        )

    task = get_task("drawings")
    with pytest.raises(PlatformError, match="draws 16x16 pixels of RGB"):
        made(28, "L").train(task, tmp_path, tmp_path / "no", tmp_path, lambda *_, **__: None)
    config = made(16)
    out = tmp_path / "candidate" / "model"
    trained = config.train(task, tmp_path, out, tmp_path, lambda *_, **__: None)
    engine: Any = load_engine(provisional(out.parent, fields_of(task, config, trained)), device="cpu")
    assert engine.spec.numbers == (3, 5)
    wishes = [Wish(label=name, seed=seed, steps=2, guidance=1.0) for name, seed in (("cat", 1), ("cat", 2), ("dog", 1))]
    told: list[int] = []
    first, other_seed, other_class = engine.draw(wishes, told.append)
    assert told == [3, 6]
    assert first.pixels.shape == (16, 16, 3)
    assert first == engine.draw(wishes[:1])[0]
    assert first != other_seed
    assert (first.pixels != other_class.pixels).any()

    def end(done: int) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        engine.draw(wishes, end)
    assert engine.draw(wishes[:1])[0] == first  # nothing is left of the one that was ended
    (tmp_path / "given" / "run.py").write_text("")
    with pytest.raises(PlatformError, match="no usable pipeline") as refused:
        config.train(task, tmp_path, out, tmp_path, lambda *_, **__: None)
    assert "run.py is none of" in refused.value.detail
