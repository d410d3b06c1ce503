#!/usr/bin/env bash
# MatchTIR's turn credit on Qwen3-4B with verl: one node with 8 GPUs. Set MODEL, DATA, NODES, GPUS for yours.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
model="${MODEL:-Qwen/Qwen3-4B}"
data="${DATA:-$here/data}"

export VERL_USE_EXTERNAL_MODULES=rewright.integrations.verl

turn_credit=(
    algorithm.adv_estimator=rewright                                                    # line 1
    actor_rollout_ref.rollout.agent.agent_loop_config_path="$here/agent_loop.yaml"      # line 2
    # Settings, where they are not MatchTIR's defaults; every one of TurnCredit may stand here.
    +algorithm.rewright.singleton_turn=zero
    # Ray workers need the variable too.
    +ray_kwargs.ray_init.runtime_env.env_vars.VERL_USE_EXTERNAL_MODULES=rewright.integrations.verl
)

overrides=(
    "${turn_credit[@]}"
    data.train_files="$data/train.parquet"
    data.val_files="$data/test.parquet"
    data.train_batch_size="${BATCH:-256}"
    data.max_prompt_length=7000
    data.max_response_length=23000
    data.return_raw_chat=True
    reward.custom_reward_function.path="$here/reward.py"
    actor_rollout_ref.model.path="$model"
    actor_rollout_ref.actor.optim.lr=1e-6
    actor_rollout_ref.actor.ppo_mini_batch_size=32
    actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=1
    actor_rollout_ref.actor.use_kl_loss=True
    actor_rollout_ref.actor.kl_loss_coef=0.001
    actor_rollout_ref.actor.kl_loss_type=low_var_kl
    actor_rollout_ref.actor.entropy_coeff=0.001
    actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-mean
    actor_rollout_ref.rollout.name="${ENGINE:-vllm}"
    actor_rollout_ref.rollout.n=16
    actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=1
    actor_rollout_ref.ref.log_prob_micro_batch_size_per_gpu=1
    actor_rollout_ref.rollout.multi_turn.enable=True
    actor_rollout_ref.rollout.multi_turn.format=hermes
    actor_rollout_ref.rollout.multi_turn.function_tool_path="$here/tools.py"
    actor_rollout_ref.rollout.multi_turn.max_assistant_turns=10
    actor_rollout_ref.rollout.multi_turn.max_parallel_calls=8
    actor_rollout_ref.rollout.multi_turn.max_tool_response_length=4000
    trainer.n_gpus_per_node="${GPUS:-8}"
    trainer.nnodes="${NODES:-1}"
    trainer.total_epochs=3
    trainer.project_name=rewright
    trainer.experiment_name=matchtir-verl
    "$@"
)

# Finds wrong settings and rows before Ray and the models are started.
python3 -m rewright.integrations.verl.check "${overrides[@]}"
python3 -m verl.trainer.main_ppo "${overrides[@]}"
