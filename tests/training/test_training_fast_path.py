# SPDX-License-Identifier: Apache-2.0
"""The fast path computes what transformers and PEFT compute, and says where it can't."""

import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from support.fast_models import (  # noqa: E402
    APART,
    CPU,
    KNOWN,
    LLAMA,
    PACKED,
    WIDE,
    base_of,
    batch_of,
    fast_loss,
    loss_and_gradient,
    model_of,
)
from tuneyard_trainer.fast import head  # noqa: E402
from tuneyard_trainer.fast.path import FastPath  # noqa: E402
from tuneyard_trainer.fast.structure import UnknownStructureError  # noqa: E402
from tuneyard_trainer.model.loading import Device  # noqa: E402
from tuneyard_trainer.model.world import World  # noqa: E402
from tuneyard_trainer.training import losses  # noqa: E402
from tuneyard_trainer.training.batches import Frame, summed_loss  # noqa: E402
from tuneyard_trainer.training.losses import Losses  # noqa: E402

# PEFT 0.21 asks transformers 5 for a property under its old name.
pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning"),
]
CPU_BF16 = Device(torch.device("cpu"), torch.bfloat16, is_autocast=True)
GPU = Device(torch.device("cuda", 0), torch.bfloat16, is_autocast=True)

OTHER = {
    "a window": ("Mistral", LLAMA | {"sliding_window": 8}, "a token looks back on 8 tokens only"),
    "a multiplier": ("Granite", LLAMA | {"residual_multiplier": 0.3}, "has residual_multiplier 0.3"),
    "norms elsewhere": ("Olmo2", LLAMA, "a layer has the parts mlp, post_attention_layernorm, post_feed"),
    "other rotary positions": ("Glm", WIDE, "its rotary positions pair other numbers"),
    "layers without positions": ("SmolLM3", LLAMA | {"no_rope_layer_interval": 2}, "have no positions"),
    "another norm": ("StableLm", LLAMA, "LayerNorm is no RMSNorm"),
    "experts": ("Mixtral", LLAMA, "its MLP has the parts experts, gate"),
    "another body": ("GPTNeoX", LLAMA, "the model has the parts gpt_neox, lm_head"),
}


@pytest.mark.parametrize(("name", "options"), KNOWN.values(), ids=KNOWN.keys())
def test_loss_and_gradient_are_those_of_peft(name, options):
    model = model_of(name, options)
    plain = [loss_and_gradient(model, summed_loss(model, batch_of(rows), CPU)) for rows in (PACKED, APART)]
    fast = FastPath(model, longest=64, is_compiled=False)
    for rows, (loss, gradient) in zip((PACKED, APART), plain, strict=True):
        ours, slope = loss_and_gradient(model, fast_loss(fast, batch_of(rows)))
        assert ours == pytest.approx(loss, rel=1e-5)
        assert float((slope - gradient).norm() / gradient.norm()) < 1e-5
        with torch.no_grad():
            assert float(fast_loss(fast, batch_of(rows))) == pytest.approx(loss, rel=1e-5)
    # The base model is the same for everybody else, too.
    assert loss_and_gradient(model, summed_loss(model, batch_of(PACKED), CPU))[0] == pytest.approx(
        plain[0][0]
    )


@pytest.mark.parametrize("is_tied", [False, True], ids=["head", "head is embedding"])
@pytest.mark.parametrize(("name", "options"), KNOWN.values(), ids=KNOWN.keys())
def test_loss_and_gradient_of_a_whole_model_are_those_of_transformers(name, options, is_tied):
    model = base_of(name, options | {"tie_word_embeddings": is_tied})
    plain = [loss_and_gradient(model, summed_loss(model, batch_of(rows), CPU)) for rows in (PACKED, APART)]
    for again in (False, True):
        fast = FastPath(model, longest=64, is_compiled=False, is_recomputing=again)
        for rows, (loss, gradient) in zip((PACKED, APART), plain, strict=True):
            ours, slope = loss_and_gradient(model, fast_loss(fast, batch_of(rows)))
            assert ours == pytest.approx(loss, rel=1e-5)
            assert slope.shape == gradient.shape, "no parameter is left out"
            assert float((slope - gradient).norm() / gradient.norm()) < 1e-5


@pytest.mark.parametrize("name", ["llama", "qwen2", "phi3"])
def test_a_whole_model_is_as_near_to_float32_as_by_autocast(name):
    family, options = KNOWN[name]
    model = base_of(family, options | {"initializer_range": 0.1})
    loss, gradient = loss_and_gradient(model, summed_loss(model, batch_of(PACKED), CPU))
    fast = FastPath(model, longest=64, is_compiled=False, dtype=torch.bfloat16)
    value, slope = loss_and_gradient(model, fast_loss(fast, batch_of(PACKED)))
    assert value == pytest.approx(loss, rel=0.01)
    assert {each.grad.dtype for each in model.parameters()} == {torch.float32}
    assert 1e-4 < float((slope - gradient).norm() / gradient.norm()) < 0.1


@pytest.mark.parametrize("targets", [["q_proj"], ["k_proj", "down_proj"], ["up_proj", "o_proj"]])
def test_layers_without_an_adapter(targets):
    model = model_of("Llama", LLAMA, targets=targets)
    loss, gradient = loss_and_gradient(model, summed_loss(model, batch_of(PACKED), CPU))
    ours, slope = loss_and_gradient(
        model, fast_loss(FastPath(model, longest=64, is_compiled=False), batch_of(PACKED))
    )
    assert ours == pytest.approx(loss, rel=1e-5)
    assert float((slope - gradient).norm() / gradient.norm()) < 1e-5


@pytest.mark.parametrize(("name", "options"), KNOWN.values(), ids=KNOWN.keys())
def test_in_bfloat16_it_is_as_near_to_float32_as_peft_is(name, options):
    options = options | {"initializer_range": 0.1}
    exact = model_of(name, options)
    loss, gradient = loss_and_gradient(exact, summed_loss(exact, batch_of(PACKED), CPU))
    model = model_of(name, options, dtype=torch.bfloat16)
    errors = []
    fast = FastPath(model, longest=64, is_compiled=False)
    for made in (summed_loss(model, batch_of(PACKED), CPU_BF16), fast_loss(fast, batch_of(PACKED))):
        value, slope = loss_and_gradient(model, made)
        errors.append((abs(value - loss) / loss, float((slope - gradient).norm() / gradient.norm())))
    (plain_loss, plain_slope), (fast_loss_error, fast_slope) = errors
    assert fast_loss_error < max(2 * plain_loss, 0.01)
    assert fast_slope < 1.3 * plain_slope < 0.13


@pytest.mark.parametrize(("name", "options", "said"), OTHER.values(), ids=OTHER.keys())
def test_other_structures_are_refused_in_words(name, options, said):
    with pytest.raises(UnknownStructureError, match=said):
        FastPath(model_of(name, options), longest=64, is_compiled=False)


@pytest.mark.parametrize(
    ("lora", "said"),
    [
        ({"lora_dropout": 0.1}, "lora.dropout"),
        ({"targets": ["q_proj", "lm_head"]}, "its output head has an adapter"),
        ({"use_dora": True}, "more than two factors"),
        ({"alpha_pattern": {"q_proj": 3}}, "its adapters have 2 scales"),
    ],
)
def test_other_adapters_are_refused_in_words(lora, said):
    with pytest.raises(UnknownStructureError, match=said):
        FastPath(model_of("Llama", LLAMA, **lora), longest=64, is_compiled=False)


def test_a_model_that_computes_something_more_is_found_by_its_logits(monkeypatch):
    model = model_of("Llama", LLAMA)
    mlp = type(model.get_base_model().model.layers[0].mlp)
    forward = mlp.forward
    monkeypatch.setattr(mlp, "forward", lambda self, x: 3 * forward(self, x))
    with pytest.raises(UnknownStructureError, match="its logits would differ by"):
        FastPath(model, longest=64, is_compiled=False)


def test_weights_are_held_once():
    model = model_of("Llama", LLAMA)
    fast = FastPath(model, longest=64, is_compiled=False)
    layer = model.get_base_model().model.layers[1]
    for projection, names in ((fast._layers[1].qkv, "qkv"), (fast._layers[1].gate_up, ("gate", "up"))):
        parent = layer.self_attn if names == "qkv" else layer.mlp
        parts = [getattr(parent, f"{name}_proj").base_layer.weight for name in names]
        assert parts[0].data_ptr() == projection.frozen[0].data_ptr()
        assert {part.untyped_storage().data_ptr() for part in parts} == {
            parts[0].untyped_storage().data_ptr()
        }
        assert torch.equal(torch.cat([part.detach() for part in parts]), projection.frozen[0])


def test_values_do_not_keep_the_product_that_they_are_part_of():
    fast = FastPath(model_of("Llama", LLAMA), longest=64, is_compiled=False)
    layer, turns = fast._layers[0], (torch.ones(5, 1, 8), torch.zeros(5, 1, 8))
    *_, values = fast._block.before(
        torch.randn(5, 32), turns, layer.first_norm, layer.head_norms, layer.qkv.arguments()
    )
    assert values.untyped_storage().nbytes() == values.numel() * values.element_size()


def test_losses_run_as_the_forward_pass_of_the_model_and_of_each_layer():
    """Hooks of FSDP2 gather parameters there; on a GPU it asks for an argument."""
    model = model_of("Llama", LLAMA)
    called, layers = [], model.get_base_model().model.layers
    fast = FastPath(model, longest=64, is_compiled=False)
    for part in (model, *layers):
        part.register_forward_pre_hook(lambda part, arguments: called.append((part, len(arguments))))
    fast_loss(fast, batch_of(PACKED))
    assert [part for part, _ in called] == [model, *layers]
    assert all(arguments for _, arguments in called)


def test_recomputing_changes_nothing():
    model = model_of("Llama", LLAMA)
    kept, made_again = (
        loss_and_gradient(
            model,
            fast_loss(FastPath(model, longest=64, is_compiled=False, is_recomputing=again), batch_of(PACKED)),
        )
        for again in (False, True)
    )
    assert made_again[0] == kept[0]
    assert torch.equal(made_again[1], kept[1])


def test_pieces_of_the_head_change_nothing(monkeypatch):
    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 8, requires_grad=True), torch.randn(30, 8)
    labels = torch.randint(0, 30, (50,))
    labels[::3] = -100
    expected = torch.nn.functional.cross_entropy(hidden @ weight.t(), labels, reduction="sum")
    (slope,) = torch.autograd.grad(2 * expected, hidden)
    for piece in (7, 50, 4096):
        monkeypatch.setattr(head, "PIECE", piece)
        loss = head.summed_loss(hidden, weight, labels)
        assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
        assert torch.autograd.grad(2 * loss, hidden)[0] == pytest.approx(slope, abs=1e-5)


# The compiler looks at it itself.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
@pytest.mark.parametrize(
    ("make", "functions"),
    # Before and after attention, the last norm, the head; of an adapter, the first layer's input needs no gradient.
    [(model_of, 6), (base_of, 4)],
)
def test_functions_are_compiled_once_for_all_layers(make, functions, monkeypatch):
    """Three layers need as many as two, and other records in a batch of the same shape need no new one."""
    counts = []
    compile_function = torch.compile
    for layers in (2, 3):
        torch._dynamo.reset()
        counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
        monkeypatch.setattr(
            torch, "compile", lambda f, counter=counter, **more: compile_function(f, backend=counter, **more)
        )
        model = make("Llama", LLAMA | {"num_hidden_layers": layers})
        plain = loss_and_gradient(model, summed_loss(model, batch_of(PACKED), CPU))
        fast = FastPath(model, longest=64, is_compiled=True)
        compiled = loss_and_gradient(model, fast_loss(fast, batch_of(PACKED)))
        assert compiled[0] == pytest.approx(plain[0], rel=1e-5)
        assert float((compiled[1] - plain[1]).norm() / plain[1].norm()) < 1e-5
        before = counter.frame_count
        loss_and_gradient(model, fast_loss(fast, batch_of([[5], [0, 3, 1], [2, 4]])))
        assert counter.frame_count == before
        counts.append(before)
    assert counts == [functions] * 2


REASONS = {
    "on a CPU": ({}, CPU, World(), "it needs an NVIDIA GPU"),
    "ia3": ({"method": "ia3"}, GPU, World(), "method ia3 does not have one"),
    "pTuning": ({"method": "pTuning"}, GPU, World(), "method pTuning does not have one"),
    "dora": (
        {"lora": {"dora": True}},
        GPU,
        World(),
        "lora.dora trains magnitudes, which it does not compute",
    ),
    "dpo": ({"method": "dpo"}, GPU, World(), "method dpo does not have one"),
    "float32": ({}, dataclasses.replace(GPU, is_autocast=False), World(), "it computes in bfloat16"),
    "dora on two GPUs": (
        {"lora": {"dora": True}},
        GPU,
        World(0, 2),
        "lora.dora trains magnitudes, which it does not compute",
    ),
    "nf4": ({"quantization": "nf4"}, GPU, World(), "the base model is quantized to nf4"),
}


@pytest.fixture(autouse=True)
def a_compiler(monkeypatch):
    monkeypatch.setattr(losses, "_has_compiler", lambda: True)


def test_without_a_compiler_a_job_takes_the_plain_path(job_of, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr("shutil.which", lambda _: None)
    chosen = Losses.choose(None, job_of(tmp_path, tmp_path), GPU, World(), Frame())
    assert chosen.why_plain == "this image has no C compiler, which compiling for a GPU needs"


@pytest.mark.parametrize("case", REASONS.values(), ids=REASONS.keys())
def test_why_a_job_takes_the_plain_path(case, job_of, tmp_path):
    changes, device, world, said = case
    chosen = Losses.choose(None, job_of(tmp_path, tmp_path, **changes), device, world, Frame())
    assert chosen.fast is None
    assert chosen.why_plain == said


def test_a_model_that_is_not_known_takes_the_plain_path(job_of, tmp_path):
    chosen = Losses.choose(model_of("StableLm", LLAMA), job_of(tmp_path, tmp_path), GPU, World(), Frame())
    assert chosen.why_plain == "the model is not known to the fast path: LayerNorm is no RMSNorm"
