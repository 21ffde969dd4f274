"""What every peer of a real swarm must hold, bit for bit, whatever its machine is like."""

import pytest

PLAIN = {
    # Kernels for the oldest processor, and as many threads as nobody else has.
    "ATEN_CPU_CAPABILITY": "default",
    "NPY_DISABLE_CPU_FEATURES": "AVX2 FMA3 AVX512F AVX512CD AVX512_SKX",
    "DNNL_MAX_CPU_ISA": "SSE41",
    "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    "CTPEER_COMPUTE__THREADS": "2",
}


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_roots_are_equal_with_other_threads_and_instruction_sets(make_swarm):
    swarm = make_swarm(2, max_epochs=20, environments={1: PLAIN})
    assert len(swarm.hold_together(20)) == 64
    for status in swarm.statuses():
        assert status["rounds"]["failed"] == 0
        assert status["epochs_lost_in_branches"] == 0


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(180)
def test_roots_are_equal_on_a_cpu_and_a_cuda_peer(make_swarm):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs CUDA")
    swarm = make_swarm(2, max_epochs=20, environments={1: {"CTPEER_COMPUTE__DEVICE": "cuda"}})
    swarm.hold_together(20)


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("codec", ["fp16", "int8"])
def test_roots_are_equal_with_a_lossy_codec(make_swarm, make_run, codec):
    swarm = make_swarm(2, max_epochs=15, run=make_run("--codec", codec))
    swarm.hold_together(15)
    losses = [status["losses"] for status in swarm.statuses()]
    assert all(loss[-1] < loss[0] for loss in losses)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_everybody_is_in_every_group(make_swarm):
    swarm = make_swarm(4, max_epochs=25)
    swarm.hold_together(25)
    for status, commits in zip(swarm.statuses(), swarm.commits(), strict=True):
        whole = [commit for commit in commits if len(commit["loss_terms"]) == 4]
        assert len(whole) >= 0.95 * 25, (status["rounds"], commits)


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_second_peer_contributes_soon_and_knows_nothing_but_the_invite(make_daemon, swarm_run):
    first = make_daemon().start(swarm_run)
    invite = first.wait_until(lambda status: status["invite"] and status["epoch"])["invite"]
    second = make_daemon().start(invite)
    loading = second.wait_until(lambda status: status["state"] == "joining")
    joined = second.wait_until(lambda status: status["peers"]["in_group"] == 2)
    assert joined["uptime_s"] - loading["uptime_s"] < 30.0
    mine = [commit["loss_terms"].get(joined["peer_id"], 0) for commit in second.commits()]
    assert any(mine)
    assert joined["run_id"] == first.status()["run_id"]
