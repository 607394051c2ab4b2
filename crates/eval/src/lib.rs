//! Evaluation of language models: tasks as data, metrics with standard errors, a sandbox for model-written code, endpoints.
