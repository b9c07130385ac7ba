"""Every encoder family under every method: exits, training, tracing, counting and saving.

What a method cannot do with a family is refused in one line.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.families import FAMILIES, write_family
from support.messages import assert_message
from support.trainings import make_run

from baselines.bert import Bert
from baselines.deebert import DeeBert
from baselines.distilbert import DistilBert
from baselines.distillation.augmentation import word_piece_tokenizer
from baselines.distillation.students import take_layers
from baselines.encoders.encoder import EncoderModel, ModelConfig
from baselines.pabee import Pabee
from baselines.tinybert import TinyBert
from baselines.training.equilibrium import gradient_equilibrium
from baselines.training.finetune import FineTune
from baselines.training.recipe import Recipe
from costeff.importance import Importance
from costeff.pipeline import CostEff
from costeff.prune import pruned
from costeff.width_budget import encoder_macs
from harness.data.corpus import Corpus
from harness.data.dataset import TaskData
from harness.data.loading import load_data
from harness.data.tasks import TASKS
from harness.errors import HarnessError
from harness.evaluation.policies import Entropy
from harness.measure.inference import collect, predict_early
from harness.measure.macs import piece_costs
from harness.methods.compute import Compute
from harness.methods.registry import load_method, model_format
from harness.methods.stages import FitContext
from harness.models.backbones import BACKBONES, Backbone, find_backbone
from harness.models.batches import collate
from harness.models.multi_exit import Batch
from harness.models.shapes import EncoderShape

LENGTH = 24
RATES = (1e-3,)
METHODS: dict[str, Recipe] = {
    "bert": Bert(epochs=1, learning_rates=RATES),
    "deebert": DeeBert(
        epochs=1, learning_rates=RATES, teacher=Bert(epochs=1, learning_rates=RATES)
    ),
    "pabee": Pabee(epochs=1, learning_rates=RATES),
}


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Backbone]:
    return {
        family: find_backbone(str(write_family(tmp_path_factory.mktemp(family) / family, family)))
        for family in FAMILIES
    }


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> FitContext:
    """One cache, in which a teacher is fitted once."""
    return FitContext(
        1,
        Compute(torch.device("cpu"), "float32", threads=1),
        tmp_path_factory.mktemp("cache"),
        model_format(),
    )


def rows_of(backbone: Backbone) -> TaskData:
    return load_data(TASKS["demo-pair"], None, limit=32).encoded(backbone.encode, LENGTH)


def closed_form(shape: EncoderShape, length: int) -> tuple[int, int]:
    """Return the MACs of the embedding and of a layer."""
    d = shape.hidden
    return length * (
        shape.embedding_size or 0
    ) * d, 4 * length * d**2 + 2 * length**2 * d + 2 * length * d * shape.ffn[0]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", METHODS)
def test_families_run_under_every_method(
    backbones: dict[str, Backbone], shared: FitContext, family: str, name: str
) -> None:
    """A model is fitted, traced, counted and loaded again."""
    backbone = backbones[family]
    data = rows_of(backbone)
    fitted = METHODS[name].fit(data, backbone, shared)
    model = fitted.stage.model
    assert isinstance(model, EncoderModel)
    assert fitted.stage.weights().loaded > 0
    trace = collect(model, data.dev, 8, torch.device("cpu"))
    assert trace.logits.shape == ((1 if name == "bert" else 3), len(data.dev), 2)
    assert np.isfinite(trace.logits).all()
    costs = piece_costs(model)
    embedding, layer = closed_form(backbone.shape, LENGTH)
    assert costs.embedding.at(LENGTH) == embedding
    assert [piece.at(LENGTH) for piece in costs.layers] == [layer] * 3
    again = model_format().load_model(fitted.stage.model_folder)
    batch = collate(data.dev.tokens, np.arange(6))
    live = predict_early(again, batch, Entropy(), 0.0)  # no example exits early
    assert live.logits.numpy() == pytest.approx(trace.logits[-1, :6], abs=1e-4)
    before = METHODS[name].build(backbone, data.task)
    assert before.parameter_count() == model.parameter_count()


def test_repeated_layer_sums_its_gradients(backbones: dict[str, Backbone], tmp_path: Path) -> None:
    """The gradient of a repeated layer is the sum over its uses.

    It equals the sum over three separate layers with the same weights."""
    backbone = backbones["albert"]
    config = ModelConfig(replace(backbone.shape, dropout=0.0), "cls", 2, 1.0, ("plain",) * 3)
    torch.manual_seed(3)
    repeated = EncoderModel(config)
    separate = EncoderModel(replace(config, shape=replace(config.shape, shared_layers=False)))
    separate.load_state_dict(repeated.state_dict())
    batch = collate(rows_of(backbone).train.tokens, np.arange(4))
    for model in (repeated, separate):
        model(batch).logits.square().sum().backward()
    for name, parameter in repeated.layers[0].named_parameters():
        gradients = [layer.get_parameter(name).grad for layer in separate.layers]
        assert parameter.grad is not None
        torch.testing.assert_close(
            parameter.grad,
            sum(gradient for gradient in gradients if gradient is not None),
            atol=1e-5,
            rtol=1e-4,
        )


def test_training_state_holds_layer_once(backbones: dict[str, Backbone], tmp_path: Path) -> None:
    """The saved training state has a repeated layer once."""
    backbone = backbones["albert"]
    (schedule,) = METHODS["bert"].schedules(backbone)
    fresh = FineTune("fine-tune", (None, None, "plain"), (1.0,), schedule).fit(
        (), rows_of(backbone), backbone, make_run(tmp_path / "run")
    )
    size = 4 * fresh.model.parameter_count()
    written = (tmp_path / "run" / "train.pt").stat().st_size
    assert written < 4.9 * size  # model, two moments, best epoch, and names


def test_shared_layers_need_equal_widths(backbones: dict[str, Backbone]) -> None:
    """Shared layers of different widths are refused."""
    shape = replace(backbones["albert"].shape, heads=(4, 4, 2))
    with pytest.raises(ValueError, match="4, 4, 2"):
        EncoderModel(ModelConfig(shape, "cls", 2, 1.0, ("plain",) * 3))


def test_embedding_factorises_one_way(backbones: dict[str, Backbone]) -> None:
    """An embedding cannot be factorised in two ways."""
    with pytest.raises(ValueError, match=r"\b4\b.*\b12\b"):
        EncoderModel(
            ModelConfig(
                replace(backbones["electra"].shape, embedding_rank=4), "cls", 2, 1.0, ("plain",) * 3
            )
        )


# --- students


@pytest.mark.parametrize("family", FAMILIES)
def test_full_student_equals_its_teacher(backbones: dict[str, Backbone], family: str) -> None:
    """A student with all layers equals its teacher on single texts."""
    shape = backbones[family].shape
    torch.manual_seed(5)
    teacher = EncoderModel(
        ModelConfig(shape, "cls", 2, 1.0, (None, None, "plain"), masked_lm=True)
    ).eval()
    student = take_layers(teacher, (0, 1, 2)).eval()
    ids = torch.randint(5, 90, (2, 7))
    batch = Batch(ids, torch.zeros_like(ids), torch.ones_like(ids, dtype=torch.bool))
    with torch.no_grad():
        torch.testing.assert_close(student(batch).hiddens[-1], teacher(batch).hiddens[-1])


@pytest.mark.parametrize("family", FAMILIES)
def test_tinybert_fits_without_augmentation(
    backbones: dict[str, Backbone], shared: FitContext, family: str
) -> None:
    """TinyBERT fits every family without augmentation."""
    backbone = backbones[family]
    method = TinyBert(
        layers=2 / 3,
        general=False,
        augmentation=0,
        intermediate_steps=1,
        prediction_steps=1,
        learning_rates=RATES,
        teacher=METHODS["bert"],
    )
    model = method.fit(rows_of(backbone), backbone, shared).stage.model
    assert model.parameter_count() == method.build(backbone, TASKS["demo-pair"]).parameter_count()


@pytest.mark.parametrize("family", FAMILIES)
def test_student_pretrains_on_masked_words(
    backbones: dict[str, Backbone], shared: FitContext, family: str
) -> None:
    """A student is pre-trained on masked words with each family's own special pieces."""
    backbone, context = backbones[family], replace(shared, corpus=Corpus(limit=40))
    method = DistilBert(layers=2 / 3, pretraining_epochs=1, epochs=1, learning_rates=RATES)
    fitted = method.fit(rows_of(backbone), backbone, context).stage
    assert [use.report.name for use in fitted.uses()] == ["masked-lm", "distil-cosine", "fine-tune"]
    assert (
        fitted.model.parameter_count()
        == method.build(backbone, TASKS["demo-pair"]).parameter_count()
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_augmentation_needs_word_pieces(backbones: dict[str, Backbone], family: str) -> None:
    """Augmentation needs a WordPiece vocabulary."""
    if family in ("roberta", "albert"):
        with pytest.raises(HarnessError) as error:
            word_piece_tokenizer(backbones[family])
        assert_message(error, family, "augmentation=0")
        with pytest.raises(HarnessError):
            TinyBert().fit(rows_of(backbones[family]), backbones[family], None)
    else:
        word_piece_tokenizer(backbones[family])


# --- COST-EFF


WHOLE = CostEff(rank=1)


def test_costeff_refuses_repeated_layers() -> None:
    """COST-EFF refuses repeated layers."""
    albert = BACKBONES["albert-base-v2"]
    for ask in (
        WHOLE.resolved,
        WHOLE.shape,
        lambda backbone: WHOLE.build(backbone, TASKS["rte"]),
    ):
        with pytest.raises(HarnessError) as error:
            ask(albert)
        assert_message(error, "CostEff", "albert-base-v2")
    with (
        pytest.raises(ValueError, match="equilibrium"),
        gradient_equilibrium(load_method("pabee").build(albert, TASKS["rte"])),
    ):
        pass


@pytest.mark.parametrize(
    "method",
    [CostEff(), CostEff(rank=1, parameter_ratio=2), CostEff(mac_ratio=2)],
    ids=["rank", "ratio", "macs"],
)
def test_costeff_refuses_factorised_embedding(method: CostEff) -> None:
    """COST-EFF refuses to factorise an embedding twice."""
    with pytest.raises(HarnessError) as error:
        method.resolved(BACKBONES["electra-small-discriminator"])
    assert_message(error, "CostEff", "electra-small-discriminator", "rank=1")


def test_costeff_prunes_electra_layers(backbones: dict[str, Backbone]) -> None:
    """COST-EFF prunes heads and neurons of ELECTRA."""
    electra = BACKBONES["electra-small-discriminator"]
    with torch.device("meta"):
        full, half = (
            method.build(electra, TASKS["rte"])
            for method in (CostEff(1, 1, 1), CostEff(1 / 2, 1 / 2, 1))
        )
    # the halved parameters; biases of output and narrowing layers and norms stay
    layer = 4 * 256 * 256 + 3 * 256 + 2 * 256 * 1024 + 1024
    assert full.parameter_count() - half.parameter_count() == 12 * layer // 2
    shape = CostEff(rank=1, mac_ratio=2.0).shape(electra)
    costs = piece_costs(CostEff(rank=1, mac_ratio=2.0).build(electra, TASKS["rte"]))
    assert encoder_macs(shape) == costs.embedding.at(128) + sum(
        piece.at(128) for piece in costs.layers
    )
    assert 2.0 <= encoder_macs(electra.shape) / encoder_macs(shape) < 2.05


@pytest.mark.parametrize("family", ["roberta", "electra"])
def test_pruning_nothing_is_identity(backbones: dict[str, Backbone], family: str) -> None:
    """Pruning nothing is the identity."""
    backbone = backbones[family]
    torch.manual_seed(2)
    model = EncoderModel(ModelConfig(backbone.shape, "cls", 2, 1.0, ("plain",) * 3)).eval()
    scores = Importance((torch.rand(4),) * 3, (torch.rand(48),) * 3)
    batch = collate(rows_of(backbone).dev.tokens, np.arange(4))
    with torch.no_grad():
        assert torch.equal(pruned(model, backbone.shape, scores)(batch).logits, model(batch).logits)
        factorised = (
            pruned(model, replace(backbone.shape, embedding_rank=32), scores)
            if family == "roberta"
            else model
        )
        torch.testing.assert_close(factorised(batch).logits, model(batch).logits, atol=1e-5, rtol=0)
