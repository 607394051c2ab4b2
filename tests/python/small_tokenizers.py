"""Small tokenizers in the old formats, and what transformers and sentencepiece make of texts with them.

    python tests/python/small_tokenizers.py train     # makes crates/lm/tests/tokenizers/*; needs sentencepiece and tokenizers
    python tests/python/small_tokenizers.py record    # writes expected.json there; needs transformers, sentencepiece, protobuf

A case of expected.json: the folder, what tokenizer_config.json says beside the folder's own, a text (and a pair), and the ids: `ids` with special
tokens and `plain` without by transformers, `sentencepiece` by sentencepiece itself (no special tokens in the text), `decoded` from `plain`, by transformers.
"""
import json
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

FOLDER = Path(__file__).parents[2] / "crates/lm/tests/tokenizers"
TEXTS = [
    "",
    " ",
    "  ",
    "Hello world",
    " leading and trailing ",
    "two  spaces   three",
    "line\nfeed\n\nand\ttab\r\n",
    "Die Straße ist naß, der Käse ist à la crème.",
    "e\u0301 composed é, ﬁne Ｆｕｌｌ",
    "世界 Привет мир",
    "emoji 🙂 👩‍👩‍👧 ﷽",
    "1234567890 3.14 x=1;y=2",
    "def f(x):\n    return x + 1\n",
    "before<s>after</s> end",
    "<unk> [CLS] [MASK] <mask>",
    "</s></s>",
    "aaaaaaaa bbbb abababab",
    "It's we'll they've DON'T",
    "\u200bzero\u00a0width\u3000space",
    "supercalifragilisticexpialidocious" * 3,
    "\x00\x01 control",
]
CORPUS = """The river rises in the hills and runs to the sea. A merge of two models is a weighted sum of their parameters.
She said that they would be there at ten, but the train was late again; nobody minded. It's we'll they've don't.
def add(x, y): return x + y. for i in range(10): print(i). if x == 1: y = 2. 0 1 2 3 4 5 6 7 8 9 10 100 1000
Die Straße war naß, der Käse gut. Le café à la crème coûte trois euros. Hello world, hello again, supper and super.
What is the capital of France? The answer is: Paris. Let us think step by step. ababab aaaa bbbb (a) [b] {c} <d>""".split("\n")


def train():
    import sentencepiece as spm
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    def sentencepiece(name, file, **options):
        folder = FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as scratch:
            spm.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS * 20), model_prefix=f"{scratch}/m", minloglevel=2, **options)
            (folder / file).write_bytes(Path(f"{scratch}/m.model").read_bytes())

    llama = dict(model_type="bpe", byte_fallback=True, split_digits=True, vocab_size=520, normalization_rule_name="identity",
                 remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, character_coverage=1.0)
    sentencepiece("llama", "tokenizer.model", **llama)
    (FOLDER / "llama/tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}\n')
    sentencepiece("gemma", "tokenizer.model", **llama, add_dummy_prefix=False, pad_id=0, eos_id=1, bos_id=2, unk_id=3, pad_piece="<pad>",
                  eos_piece="<eos>", bos_piece="<bos>", user_defined_symbols=["<start_of_turn>", "<end_of_turn>", "\n\n", "▁▁"])
    (FOLDER / "gemma/tokenizer_config.json").write_text('{"tokenizer_class": "GemmaTokenizer"}\n')
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write("FB01\t66 69\nFF26\t46\nFF55\t75\nFF4C\t6C\n9\t20\nA\t20\nD\t20\nA0\t20\n3000\t20\n65 301\tE9\n200B\t\n1\t\n")
        rules.flush()
        unigram = dict(model_type="unigram", vocab_size=130, normalization_rule_tsv=rules.name, character_coverage=1.0)
        sentencepiece("xlm-roberta", "sentencepiece.bpe.model", **unigram)
        (FOLDER / "xlm-roberta/tokenizer_config.json").write_text('{"tokenizer_class": "XLMRobertaTokenizer"}\n')
        sentencepiece("t5", "spiece.model", **unigram, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
        (FOLDER / "t5/tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer"}\n')

    for name, special in [("gpt2", ["<|endoftext|>"]), ("roberta", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]), ("qwen2", ["<|endoftext|>"])]:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False)
        tokenizer.train_from_iterator(CORPUS * 20, trainer)
        folder = FOLDER / name
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer.model.save(str(folder))
        kind = {"gpt2": "GPT2Tokenizer", "roberta": "RobertaTokenizer", "qwen2": "Qwen2Tokenizer"}[name]
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}) + "\n")
    (FOLDER / "qwen2/added_tokens.json").write_text('{"<|im_start|>": 500, "<|im_end|>": 501}\n')

    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(vocab_size=400, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"], show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, *[line.lower() for line in CORPUS]] * 20, trainer)
    (FOLDER / "bert").mkdir(parents=True, exist_ok=True)
    tokenizer.model.save(str(FOLDER / "bert"))
    (FOLDER / "bert/tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}\n')


def llama_by_converter(reference, legacy, model):
    """Llama's tokenizer as convert_slow_tokenizer.LlamaConverter has it: vocabulary and merges of transformers' class, the rest by the converter."""
    from transformers.convert_slow_tokenizer import LlamaConverter

    original = SimpleNamespace(legacy=legacy, add_prefix_space=True)
    stand_in = SimpleNamespace(original_tokenizer=original)
    backend = reference.backend_tokenizer
    backend.normalizer = LlamaConverter.normalizer(stand_in, None)
    pre_tokenizer = LlamaConverter.pre_tokenizer(stand_in, "▁", True)
    if pre_tokenizer is not None:
        backend.pre_tokenizer = pre_tokenizer
    else:
        import tokenizers
        backend.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([])
    backend.decoder = LlamaConverter.decoder(stand_in, "▁", True)
    return reference


def record():
    import sentencepiece as spm
    import transformers

    cases = []
    kinds = [
        ("llama", {"legacy": True, "add_bos_token": True}), ("llama", {"legacy": False, "add_bos_token": True}),
        ("llama", {"legacy": True, "add_bos_token": True, "add_eos_token": True}), ("llama", {"legacy": True, "add_bos_token": False}),
        ("gemma", None), ("xlm-roberta", {}), ("t5", {}), ("gpt2", {}), ("gpt2", {"add_prefix_space": True}), ("roberta", {}), ("qwen2", {}),
        ("bert", {}), ("bert", {"do_lower_case": False}), ("bert", {"do_lower_case": True, "strip_accents": False, "tokenize_chinese_chars": False}),
    ]
    for name, config in kinds:
        folder = FOLDER / name
        own = json.loads((folder / "tokenizer_config.json").read_text())
        spm_file = next((folder / file for file in ("tokenizer.model", "sentencepiece.bpe.model", "spiece.model") if (folder / file).exists()), None)
        model = spm.SentencePieceProcessor(str(spm_file)) if spm_file else None
        # Gemma's class in transformers reads no sentencepiece model: sentencepiece alone speaks for it.
        tokenizer = None if config is None else getattr(transformers, own["tokenizer_class"]).from_pretrained(folder, **config)
        if name == "llama":
            tokenizer = llama_by_converter(tokenizer, config["legacy"], model)
        for text in TEXTS:
            case = {"folder": name, "config": config or {}, "text": text}
            if tokenizer is not None:
                case["ids"] = tokenizer(text)["input_ids"]
                case["plain"] = tokenizer(text, add_special_tokens=False)["input_ids"]
                case["decoded"] = tokenizer.decode(case["plain"], clean_up_tokenization_spaces=False)
            # sentencepiece does not look for special tokens in texts, and XLM-R's ids are moved.
            if model is not None and name in ("llama", "gemma") and "<" not in text and config in (None, {"legacy": True, "add_bos_token": True}):
                case["sentencepiece"] = model.encode(text)
            cases.append(case)
        if tokenizer is not None:
            for first, second, length in [("Hello world again", "the river", 64), ("a b c d e f g h", "super", 9), ("super", "a b c d e f g h", 9),
                                          ("a b c d e f g h", "i j k l m n o p", 10), ("", "", 8)]:
                encoded = tokenizer(first, second, truncation=True, max_length=length, return_token_type_ids=True)
                cases.append({"folder": name, "config": config, "text": first, "pair": second, "max_tokens": length,
                              "ids": encoded["input_ids"], "type_ids": encoded["token_type_ids"]})
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    (FOLDER / "expected.json").write_text(f"[\n{lines}\n]\n")
    print(len(cases), "cases")


{"train": train, "record": record}[sys.argv[1]]()
