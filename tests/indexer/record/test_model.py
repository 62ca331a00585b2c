"""Names and weights of models and optimizers, however they are wrapped."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
from accelerate import Accelerator  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch._C._distributed_c10d import HashStore
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from indexer.errors import RecordError
from indexer.record.model import (
    check_recordable,
    gradient_norm,
    group_names,
    optimizer_state,
    rates_used,
    unwrapped,
    unwrapped_optimizer,
    was_skipped,
    weights,
)
from tests.indexer.record.training import network, two_groups

NAMES = [["2.weight", "2.bias"], ["0.weight", "0.bias"]]


class Tied(nn.Module):
    """An embedding that is its own head."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embedding.weight


@pytest.fixture
def alone() -> Iterator[None]:
    """A process group of one."""
    torch.distributed.init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


class Forwarded(nn.Module):
    """As Lightning's Fabric wraps a model."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self._forward_module = module


def test_a_model_inside_of_fabric_is_found() -> None:
    net = nn.Linear(2, 1)
    assert unwrapped(Forwarded(Forwarded(net))) is net


def test_wrapped_models_have_the_names_of_the_model_inside(alone: None) -> None:
    net = network()
    optimizer = two_groups(net)
    compiled = torch.compile(nn.parallel.DistributedDataParallel(net), backend="eager")
    assert isinstance(compiled, nn.Module)
    assert unwrapped(compiled) is net
    assert group_names(unwrapped(compiled), optimizer) == NAMES


def test_a_layer_that_is_compiled_has_its_own_name() -> None:
    net = network()
    optimizer = two_groups(net)
    compiled = torch.compile(net[2], backend="eager")
    assert isinstance(compiled, nn.Module)
    net[2] = compiled
    assert "2._orig_mod.weight" in net.state_dict()
    assert group_names(net, optimizer) == NAMES
    assert list(weights(net, copy=True)) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_accelerates_optimizer_is_the_one_inside() -> None:
    optimizer = two_groups(network())
    assert unwrapped_optimizer(Accelerator(cpu=True).prepare(optimizer)) is optimizer
    assert unwrapped_optimizer(optimizer) is optimizer


def test_an_optimizer_of_another_model_is_refused() -> None:
    expected = r"parameter 1 of group 1 of the optimizer, of shape \(2, 4\), is none of the model's; expected the model"
    with pytest.raises(RecordError, match=expected):
        group_names(network(), two_groups(network()))


@pytest.mark.parametrize("copy", [True, False])
def test_weights_are_as_safetensors_takes_them(tmp_path: Path, copy: bool) -> None:
    """Tied ones under each of their names, transposed and expanded ones too."""
    model = Tied()
    model.register_buffer("view", torch.ones(2, 1).expand(2, 3).T)
    found = weights(model, copy=copy)
    assert list(found) == ["view", "embedding.weight", "head.weight"]
    safetensors.torch.save_file(found, tmp_path / "w.safetensors")
    assert safetensors.torch.load_file(tmp_path / "w.safetensors")["head.weight"].equal(model.head.weight)
    assert (found["embedding.weight"].data_ptr() == model.head.weight.data_ptr()) is not copy
    with torch.no_grad():
        model.head.weight.zero_()
    assert bool(found["embedding.weight"].any()) is copy
    assert group_names(model, torch.optim.SGD(model.parameters())) == [["embedding.weight"]]


def test_a_state_that_is_no_tensor_is_refused_at_once() -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> str:
            return "odd"

    with pytest.raises(
        RecordError, match=r"state has '_extra_state', str; a checkpoint keeps tensors only\. Leave it o"
    ):
        check_recordable(Odd(1, 1))
    check_recordable(Tied())


def test_sharded_models_are_refused(alone: None) -> None:
    """Of either kind: rank 0 has a part of each weight only."""

    class FullyShardedDataParallel(nn.Linear):
        pass

    with pytest.raises(RecordError, match=r"sharded over several processes \(FSDP\), and one process would record its"):
        check_recordable(nn.Sequential(FullyShardedDataParallel(1, 1)))
    net = network()
    fully_shard(net, mesh=init_device_mesh("cpu", (1,)))
    with pytest.raises(
        RecordError, match=r"'0\.weight' is sharded over .* \(DTensor\), .* and list them in checkpoints"
    ):
        check_recordable(net)


def test_a_saved_optimizer_has_names_and_is_left_alone() -> None:
    optimizer = two_groups(network())
    state = optimizer_state(optimizer, NAMES, copy=True)
    assert [group["param_names"] for group in state["param_groups"]] == NAMES
    assert "param_names" not in optimizer.param_groups[0]
    optimizer.load_state_dict(state)


def test_rates_are_read_as_they_are_now() -> None:
    rate = torch.tensor(0.5)
    optimizer = torch.optim.SGD(network()[0].parameters(), lr=rate)
    optimizer.add_param_group({"params": network()[2].parameters()})
    optimizer.param_groups[1]["lr"] = None
    found = rates_used(optimizer)
    rate.zero_()
    assert float(found[0]) == 0.5
    assert torch.isnan(torch.tensor(found[1]))


def test_the_norm_is_that_of_all_gradients_sparse_ones_too() -> None:
    embedding, linear, unused = nn.Embedding(5, 2, sparse=True), nn.Linear(2, 1), nn.Linear(2, 2)
    optimizer = torch.optim.SGD(nn.ModuleList([embedding, linear, unused]).parameters(), lr=0.1)
    assert gradient_norm(optimizer) == 0
    torch.autograd.backward(linear(embedding(torch.tensor([1, 1, 3]))).sum())
    assert embedding.weight.grad is not None and embedding.weight.grad.is_sparse
    dense = [embedding.weight.grad.to_dense(), *(p.grad for p in linear.parameters() if p.grad is not None)]
    torch.testing.assert_close(gradient_norm(optimizer), torch.cat([g.flatten() for g in dense]).norm())


@pytest.mark.parametrize(("found", "skipped"), [(None, False), (torch.tensor(0.0), False), (torch.tensor(1.0), True)])
def test_what_a_scaler_tells_a_fused_optimizer(found: Tensor | None, skipped: bool) -> None:
    optimizer = two_groups(network())
    if found is not None:
        vars(optimizer)["found_inf"] = found  # as GradScaler.step does
    assert was_skipped(optimizer) is skipped
