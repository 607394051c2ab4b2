//! Evaluation of language models: tasks as data, metrics with standard errors, a sandbox for model-written code, endpoints.

mod backend;
mod cache;
mod data;
mod endpoint;
mod execute;
pub mod extract;
pub mod harness_results;
mod judge;
mod local;
mod measure;
pub mod metrics;
mod report;
mod requests;
mod run;
mod run_options;
mod score;
mod shots;
pub mod task;
mod yaml;

pub use backend::{Answer, Backend, Finish, Message, Prompt, Request, Tokenisation};
pub use cache::{AnswerFile, Cached};
pub use data::{Data, Item};
pub use endpoint::{ApiKey, Endpoint, EndpointOptions};
pub use execute::SandboxedPython;
pub use local::{LocalModel, LocalOptions, LocalSource, RequestTokenizer};
pub use measure::headline;
pub use report::{Comparison, ItemRecord, TaskResult, comparisons};
pub use requests::{Setting, requests};
pub use run::Evaluation;
pub use run_options::{Executed, Executor, Progress, RunOptions, Stage};
pub use shots::ShotsTaken;
pub use task::Task;
pub use yaml::from_yaml;
