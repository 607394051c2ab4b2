"""Saves a tiny model, weights at random, of every architecture that transformers has and deltaic knows, tied and untied, with and without
head: OUT/NAME. Prints how many.

every_architecture.py OUT
"""

import os
import sys

try:
    import torch  # noqa: F401
    import transformers
except ImportError as error:
    print(error, file=sys.stderr)
    sys.exit(77)

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM
from transformers import AutoModelForSeq2SeqLM, AutoModelForSequenceClassification, AutoModelForSpeechSeq2Seq

transformers.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()

IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = {
    **IDS, "vocab_size": 60, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64,
}
EXPERTS = {
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "n_routed_experts": 4,
    "shared_expert_intermediate_size": 24, "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1, "kv_lora_rank": 8,
    "q_lora_rank": 8, "qk_rope_head_dim": 4, "qk_nope_head_dim": 4, "v_head_dim": 8, "num_nextn_predict_layers": 1,
}
GPT = {
    **IDS, "vocab_size": 60, "n_embd": 32, "hidden_size": 32, "d_model": 32, "n_layer": 2, "n_layers": 2, "num_layers": 2, "n_head": 4,
    "n_heads": 4, "num_heads": 4, "rotary_dim": 4, "n_positions": 64, "n_ctx": 64, "max_seq_len": 64,
}
ENCODER = {**{key: value for key, value in LLAMA.items() if key != "num_key_value_heads"}, "max_position_embeddings": 66}
T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 4}
BART = {
    **IDS, "vocab_size": 60, "d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48, "max_position_embeddings": 64,
    "decoder_start_token_id": 2, "forced_eos_token_id": 2,
}
LIKE_LLAMA = """llama mistral ministral qwen2 qwen3 phi phi3 stablelm granite olmo olmo2 olmo3 glm glm4 exaone4 ernie4_5 nemotron persimmon
    gemma gemma2 gemma3_text cohere cohere2 smollm3 starcoder2 helium gpt_neox falcon""".split()
WITH_EXPERTS = "mixtral qwen2_moe qwen3_moe phimoe granitemoe olmoe deepseek_v2 deepseek_v3".split()
OWN_HEAD_DIM = "qwen3 gemma gemma2 gemma3_text glm glm4 ministral".split()

saved = 0


def save(folder, name, kind, settings, classes, **more):
    """Saves one model for each class; what this version of transformers does not have is left out."""
    global saved
    for number, cls in enumerate(classes):
        try:
            model = cls.from_config(AutoConfig.for_model(kind, **settings, **more))
        except (KeyError, ValueError, AttributeError, NotImplementedError) as error:
            print(f"left out: {kind} as {cls.__name__}: {str(error)[:80]}", file=sys.stderr)
            continue
        model.save_pretrained(os.path.join(folder, f"{name}-{number}"))
        saved += 1


def main(folder):
    for kind in LIKE_LLAMA + WITH_EXPERTS + ["opt"]:
        settings = dict(LLAMA)
        settings.update(EXPERTS if kind in WITH_EXPERTS else {})
        settings.update({"head_dim": 16} if kind in OWN_HEAD_DIM else {})
        settings.update({"ffn_dim": 48, "word_embed_proj_dim": 16} if kind == "opt" else {})
        save(folder, kind, kind, settings, [AutoModelForCausalLM, AutoModel, AutoModelForSequenceClassification])
        for tied in (False, True):
            save(folder, f"{kind}-{tied}", kind, settings, [AutoModelForCausalLM], tie_word_embeddings=tied)
    for kind in "gpt2 gptj gpt_neo codegen gpt_bigcode bloom mpt".split():
        more = {"attention_types": [[["global", "local"], 1]]} if kind == "gpt_neo" else {}
        save(folder, kind, kind, GPT, [AutoModelForCausalLM, AutoModel], **more)
    for kind in "bert roberta xlm-roberta camembert electra deberta deberta-v2 mpnet modernbert".split():
        more = {"electra": {"embedding_size": 16}, "modernbert": {"sep_token_id": 3, "cls_token_id": 4}}.get(kind, {})
        save(folder, kind, kind, ENCODER, [AutoModelForMaskedLM, AutoModel, AutoModelForSequenceClassification], **more)
    distilbert = {"vocab_size": 60, "dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "max_position_embeddings": 64}
    save(folder, "distilbert", "distilbert", distilbert, [AutoModelForMaskedLM, AutoModelForSequenceClassification])
    for kind in ("t5", "mt5", "umt5"):
        for tied in (False, True):
            save(folder, f"{kind}-{tied}", kind, T5, [AutoModelForSeq2SeqLM], tie_word_embeddings=tied)
    for kind in ("bart", "mbart", "pegasus", "m2m_100", "marian"):
        save(folder, kind, kind, BART, [AutoModelForSeq2SeqLM])
    # Unknown to deltaic.
    save(folder, "whisper", "whisper", BART, [AutoModelForSpeechSeq2Seq], suppress_tokens=[])
    print(saved)


if __name__ == "__main__":
    main(sys.argv[1])
