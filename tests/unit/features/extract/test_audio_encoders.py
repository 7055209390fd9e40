"""Sound encoders: statistics by a loop, trained and pretrained networks by the contract that all share."""

import io

import numpy as np
import pytest
import tiny_models
import torch
from encoder_checks import check_contract, make, ready, tone

from braidrec.config.base import ConfigError

pytest.importorskip("librosa", reason="the extra `extract` is not installed")
pytest.importorskip("transformers", reason="the extra `extract` is not installed")

SOUNDS = [tone(220), tone(440, 1.3), tone(880, 0.2), tone(220, 0.9, 44_100, channels=2)]
MEL = {"sample_rate": 8000, "mels": 16, "hop_ms": 20.0}


def test_log_mel_statistics_are_those_of_librosas_frames():
    import librosa
    import soundfile

    encoder, prepared = ready(make(kind="log_mel", mel={"mels": 16}), [tone(440)])
    samples, _ = soundfile.read(io.BytesIO(tone(440)), dtype="float32")
    bands = librosa.feature.melspectrogram(y=samples, sr=16_000, n_fft=512, win_length=400, hop_length=160, n_mels=16)
    frames = np.log(np.maximum(bands, 1e-10))
    expected = [op(row) for op in (np.mean, np.std, np.min, np.max) for row in frames]
    found = encoder.encode(prepared)
    assert found.shape == (1, 64)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4, atol=1e-4)


def test_log_mel_keeps_the_contract():
    check_contract(lambda: make(kind="log_mel", mel=MEL), SOUNDS, 64)


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("objective", ["reconstruction", "next_frame"])
def test_recurrent_networks_keep_the_contract(cell, objective):
    settings = {
        "kind": "recurrent_audio",
        "cell": cell,
        "objective": objective,
        "dim": 12,
        "mel": MEL,
        "window_frames": 20,
    }
    check_contract(lambda: make(**settings, epochs=2, batch=3), SOUNDS, 12)


def test_a_recurrent_networks_vector_is_the_mean_of_its_windows_states():
    encoder, prepared = ready(make(kind="recurrent_audio", dim=6, mel=MEL, window_frames=20, epochs=1), SOUNDS)
    frames = (prepared[1] - encoder.learnt().arrays["mean"]) / encoder.learnt().arrays["std"]
    states = []
    for start in range(0, len(frames), 20):
        hidden = torch.zeros(1, 1, 6)
        for frame in frames[start : start + 20]:
            with torch.no_grad():
                _, hidden = encoder.network.reader(torch.from_numpy(frame)[None, None].float(), hidden)
        states.append(hidden[0, 0].numpy())
    assert len(states) > 2
    np.testing.assert_allclose(encoder.encode([prepared[1]])[0], np.mean(states, 0), atol=1e-5)


def test_sounds_without_a_window_of_two_frames_teach_nothing():
    encoder = make(kind="recurrent_audio", mel=MEL, window_frames=1)
    with pytest.raises(ConfigError, match=r"none of 4 sounds .* raise encoder.window_frames=1"):
        encoder.fit([encoder.prepare(sound) for sound in SOUNDS])


@pytest.mark.parametrize("objective", ["reconstruction", "next_frame"])
def test_training_lowers_the_loss(objective):
    settings = {"kind": "recurrent_audio", "dim": 16, "mel": MEL, "objective": objective, "learning_rate": 0.01}
    losses = []
    for epochs in (1, 30):
        encoder, prepared = ready(make(**settings, epochs=epochs), SOUNDS)
        arrays = encoder.learnt().arrays
        frames = torch.from_numpy((prepared[0] - arrays["mean"]) / arrays["std"]).float()[None]
        with torch.no_grad():
            losses.append(float(encoder.network.loss(frames, torch.tensor([frames.shape[1]]))))
    assert losses[1] < 0.7 * losses[0]


@pytest.mark.parametrize(("kind", "dim"), [("wav2vec2", 16), ("ast", 16), ("whisper", 16), ("clap", 12)])
def test_models_of_transformers(tmp_path, kind, dim):
    folder = getattr(tiny_models, kind)(tmp_path)
    encoder = make(kind="transformers_audio", weights=str(folder))
    assert encoder.sample_rate == (8000 if kind == "wav2vec2" else 16_000)
    check_contract(lambda: make(kind="transformers_audio", weights=str(folder), batch=2), SOUNDS, dim, tolerance=1e-4)


def test_windows_of_a_long_sound_are_averaged(tmp_path):
    folder = tiny_models.wav2vec2(tmp_path)
    encoder, prepared = ready(
        make(kind="transformers_audio", weights=str(folder), window_seconds=0.5), [tone(300, 1.6)]
    )
    sound = prepared[0]
    windows = [sound[:4000], sound[4000:8000], sound[8000:12000]]  # the last tenth of a second is too short for one
    expected = np.mean([encoder.encode([window])[0] for window in windows], 0)
    np.testing.assert_allclose(encoder.encode(prepared)[0], expected, atol=1e-5)
