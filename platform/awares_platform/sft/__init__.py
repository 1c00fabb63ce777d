"""The sft job: supervised fine-tuning on curated demonstrations."""
