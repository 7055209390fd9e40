"""The encoders that turn raw media into vectors: what each can be told."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from braidrec.config.base import Strict
from braidrec.config.scalars import Positive, PositiveFloat, Seed

WEIGHTS = (
    "A name on the Hugging Face hub, a local file or folder, or `package:NAME` / `package:NAME/inner/path` for what an "
    "installed Python package brings. Read as safetensors, or by torch with weights_only=True."
)

PASSES = "Passes over the items' texts or sounds."


class _Encoder(Strict):
    batch: Positive = Field(default=32, description="Items encoded together; no effect on the vectors but rounding.")


class _Trained(_Encoder):
    """An encoder with parameters of its own that are fitted to the items of the train split."""

    seed: Seed = Field(default=42, description="Decides the initial values and the order of training.")
    fit_items: Positive = Field(
        default=200_000, description="Items of the train split that it is fitted to, at most; a random sample beyond."
    )


class PreprocessingConfig(Strict):
    """Pixels → what an image network takes. All that is null is as the network's weights were made."""

    resize: Positive | None = Field(default=None, description="Length of the shorter side before cropping, pixels.")
    crop: Positive | None = Field(default=None, description="Side of the square cut from the middle, pixels.")
    mean: tuple[float, float, float] | None = Field(default=None, description="Subtracted, of values from 0 to 1.")
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = Field(default=None, description="Divided by.")


class TorchvisionConfig(_Encoder):
    """An image network of torchvision, or EfficientNet-Lite0, cut at a layer."""

    kind: Literal["torchvision"] = "torchvision"
    model: str = Field(
        default="resnet50",
        description="A torchvision classifier by its name (resnet18, resnet152, vit_b_16, vgg16, inception_v3, "
        "alexnet, efficientnet_b0, …), `caffe_reference` (the network of the 4,096-d Amazon features), or "
        "`efficientnet_lite0`.",
    )
    weights: str | None = Field(
        default=None,
        description="A local file with the state dict, `package:NAME/file`, or `torchvision:NAME` for published ones "
        "(downloaded unless torch's cache holds them). null: random values from `seed`, which is a baseline.",
    )
    layer: str | None = Field(
        default=None,
        description="What is taken out: `avgpool`, `fc6`, `fc7` (AlexNet, VGG, Caffe), `cls` (ViT), `logits`, or any "
        "node of the network; null: the layer before the classifier. Maps are averaged over places.",
    )
    preprocessing: PreprocessingConfig = PreprocessingConfig()
    seed: Seed = Field(default=42, description="Decides the values where there are no weights.")


class TransformersImageConfig(_Encoder):
    """An image model of the transformers library: CLIP, SigLIP, ViT, DINOv2, …"""

    kind: Literal["transformers_image"] = "transformers_image"
    weights: str = Field(description=WEIGHTS)
    pooling: Literal["auto", "cls", "mean"] = Field(
        default="auto",
        description="auto: the model's own image vector (CLIP, SigLIP), else its pooled output, else cls.",
    )


class SentenceTransformersConfig(_Encoder):
    """A model of the Sentence-Transformers library, with its own pooling (Reimers and Gurevych, EMNLP 2019)."""

    kind: Literal["sentence_transformers"] = "sentence_transformers"
    weights: str = Field(description=WEIGHTS)
    max_tokens: Positive | None = Field(default=None, description="Tokens read of a text; null: the model's own limit.")


class TransformersTextConfig(_Encoder):
    """A text model of the transformers library, such as BERT (Devlin et al., NAACL 2019)."""

    kind: Literal["transformers_text"] = "transformers_text"
    weights: str = Field(description=WEIGHTS)
    pooling: Literal["cls", "mean"] = Field(
        default="mean", description="The first token's vector, or all tokens' mean."
    )
    max_tokens: Positive = Field(default=512, description="Tokens read of a text.")


class TfidfConfig(_Trained):
    """TF-IDF of words, reduced by a truncated SVD (latent semantic analysis, Deerwester et al., 1990)."""

    kind: Literal["tfidf"] = "tfidf"
    max_words: Positive = Field(default=50_000, description="Most frequent words kept.")
    min_items: Positive = Field(default=2, description="Items that must hold a word for it to be kept.")
    ngrams: Positive = Field(default=1, description="Words a term has at most.")
    sublinear: bool = Field(default=True, description="1 + log of a term's count, instead of the count.")
    dim: Positive | None = Field(
        default=256, description="Components of the SVD; null: no SVD, one number a word (max_words ≤ 4,096)."
    )

    @model_validator(mode="after")
    def _not_too_wide(self) -> "TfidfConfig":
        if self.dim is None and self.max_words > 4096:
            raise ValueError(f"dim=null gives max_words={self.max_words} numbers an item; set max_words ≤ 4096, or dim")
        return self


class _Averaged(Strict):
    weighting: Literal["mean", "sif"] = Field(
        default="mean", description="mean; or sif: a / (a + share of the word), a = 0.001 (Arora et al., ICLR 2017)."
    )
    remove_components: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Principal directions of the train items' vectors that are taken out of all (SIF: 1)."
    )


class Word2VecConfig(_Trained, _Averaged):
    """Word vectors learnt from the items' texts by skip-gram or CBOW (Mikolov et al., 2013), averaged over a text."""

    kind: Literal["word2vec"] = "word2vec"
    dim: Positive = Field(default=128, description="Numbers a word.")
    algorithm: Literal["skip_gram", "cbow"] = Field(
        default="skip_gram", description="Predict the context from the word, or the word from its context."
    )
    window: Positive = Field(default=5, description="Words on either side that count as context.")
    min_count: Positive = Field(default=2, description="Occurrences that a word needs.")
    epochs: Positive = Field(default=10, description=PASSES)


class WordVectorsConfig(_Trained, _Averaged):
    """Word vectors from a file (GloVe, fastText, word2vec), averaged over a text. The file is streamed."""

    kind: Literal["word_vectors"] = "word_vectors"
    weights: str = Field(description="File, text or word2vec's binary, each also .gz; or `package:NAME/file`.")
    format: Literal["auto", "text", "binary"] = Field(default="auto", description="auto: binary if it ends in .bin.")


class Doc2VecConfig(_Trained):
    """Paragraph vectors learnt from the items' texts (Le and Mikolov, ICML 2014)."""

    kind: Literal["doc2vec"] = "doc2vec"
    algorithm: Literal["pv_dm", "pv_dbow"] = Field(
        default="pv_dbow",
        description="A word is predicted from the text and its context; or (pv_dbow) from the text alone.",
    )
    dim: Positive = Field(default=128, description="Numbers an item.")
    window: Positive = Field(default=5, description="Words on either side that count as context.")
    min_count: Positive = Field(default=2, description="Occurrences that a word needs.")
    epochs: Positive = Field(default=20, description=PASSES)


class GruTextConfig(_Trained):
    """A GRU over words, trained on the items' texts without labels (Cho et al., EMNLP 2014)."""

    kind: Literal["gru_text"] = "gru_text"
    objective: Literal["autoencoder", "next_token"] = Field(
        default="autoencoder", description="Write the text anew from its vector, or predict each next word."
    )
    dim: Positive = Field(default=128, description="Numbers an item: the GRU's state after the last word.")
    word_dim: Positive = Field(default=64, description="Numbers a word that the GRU reads.")
    max_words: Positive = Field(default=20_000, description="Most frequent words kept; all others are one.")
    max_tokens: Positive = Field(default=64, description="Words read of a text.")
    train_batch: Positive = Field(default=32, description="Texts of one training step.")
    epochs: Positive = Field(default=5, description=PASSES)
    learning_rate: PositiveFloat = Field(default=2e-3, description="Of Adam.")


class MelConfig(Strict):
    """Sound → frames of log-mel energies."""

    sample_rate: Positive = Field(default=16_000, description="Samples a second after resampling; mixed to mono.")
    mels: Positive = Field(default=64, description="Bands.")
    hop_ms: PositiveFloat = Field(default=10.0, description="From frame to frame, milliseconds.")
    window_ms: PositiveFloat = Field(default=25.0, description="Length of a frame, milliseconds.")


class LogMelConfig(_Encoder):
    """Mean, standard deviation, least and greatest of each log-mel band over time: 4 × mels numbers."""

    kind: Literal["log_mel"] = "log_mel"
    mel: MelConfig = MelConfig()


class RecurrentAudioConfig(_Trained):
    """An LSTM or GRU over log-mel frames, trained on the items' sound without labels (Srivastava et al., ICML 2015)."""

    kind: Literal["recurrent_audio"] = "recurrent_audio"
    cell: Literal["lstm", "gru"] = Field(default="gru", description="The recurrent network.")
    objective: Literal["reconstruction", "next_frame"] = Field(
        default="next_frame", description="Reproduce the frames, last one first, from the state; or predict each next."
    )
    dim: Positive = Field(default=128, description="Numbers an item: the mean state over its frames' windows.")
    mel: MelConfig = MelConfig(hop_ms=20.0)
    window_frames: Positive = Field(
        default=200, description="Frames the network reads at a time; windows are averaged."
    )
    train_batch: Positive = Field(default=32, description="Windows of one training step.")
    epochs: Positive = Field(default=5, description=PASSES)
    learning_rate: PositiveFloat = Field(default=2e-3, description="Of Adam.")
    fit_items: Positive = Field(default=2_000, description="Items of the train split that it is fitted to, at most.")


class TransformersAudioConfig(_Encoder):
    """An audio model of the transformers library: wav2vec 2.0, AST, CLAP, the encoder of Whisper, …"""

    kind: Literal["transformers_audio"] = "transformers_audio"
    weights: str = Field(description=WEIGHTS)
    window_seconds: PositiveFloat | None = Field(
        default=None, description="Length of a window, whose vectors are averaged; null: what the model was made for."
    )
    batch: Positive = Field(default=8, description="Windows encoded together.")


ImageEncoderConfig = Annotated[TorchvisionConfig | TransformersImageConfig, Field(discriminator="kind")]


class VideoConfig(_Encoder):
    """Frames of a video through an image encoder, pooled over time. (Its sound: any audio encoder reads videos.)"""

    kind: Literal["video"] = "video"
    frames: Positive = Field(default=8, description="Frames taken at equal distances, or at most, with `rate`.")
    rate: PositiveFloat | None = Field(default=None, description="Frames a second instead.")
    pooling: Literal["mean", "max"] = Field(default="mean", description="Over the frames' vectors.")
    image: ImageEncoderConfig = TorchvisionConfig()


EncoderConfig = Annotated[
    TorchvisionConfig
    | TransformersImageConfig
    | SentenceTransformersConfig
    | TransformersTextConfig
    | TfidfConfig
    | Word2VecConfig
    | WordVectorsConfig
    | Doc2VecConfig
    | GruTextConfig
    | LogMelConfig
    | RecurrentAudioConfig
    | TransformersAudioConfig
    | VideoConfig,
    Field(discriminator="kind"),
]
