"""A trainer as public prompt-learning repositories write them: Dassl's and OpenAI's names, nothing of this project's.

It learns a shared context and, as conditional methods do, a small net on the image features; in half precision it calls
`.half()` on that net, as they do. Run by tests/test_contract.py as a plugin file.
"""
import torch
from torch import nn
from torch.nn import functional as F

from clip import clip
from clip.simple_tokenizer import SimpleTokenizer as _Tokenizer
from dassl.engine import TRAINER_REGISTRY, TrainerX
from dassl.metrics import compute_accuracy
from dassl.optim import build_lr_scheduler, build_optimizer

_tokenizer = _Tokenizer()


def load_clip_to_cpu(cfg):
    backbone_name = cfg.MODEL.BACKBONE.NAME
    url = clip._MODELS[backbone_name]
    model_path = clip._download(url)
    try:
        model = torch.jit.load(model_path, map_location="cpu").eval()
        state_dict = None
    except RuntimeError:
        state_dict = torch.load(model_path, map_location="cpu")
    return clip.build_model(state_dict or model.state_dict())


class PromptLearner(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        n_ctx, dtype = cfg.TRAINER.COOP.N_CTX, clip_model.dtype
        ctx_dim, vis_dim = clip_model.ln_final.weight.shape[0], clip_model.visual.output_dim
        if cfg.INPUT.SIZE[0] != clip_model.visual.input_resolution:
            raise ValueError("another image size than the backbone's")
        self.ctx = nn.Parameter(nn.init.normal_(torch.empty(n_ctx, ctx_dim, dtype=dtype), std=0.02))
        self.meta_net = nn.Sequential(nn.Linear(vis_dim, 4), nn.ReLU(inplace=True), nn.Linear(4, ctx_dim))
        nn.init.zeros_(self.meta_net[-1].weight)
        nn.init.zeros_(self.meta_net[-1].bias)
        if cfg.TRAINER.COOP.PREC == "fp16":
            self.meta_net.half()
        names = [name.replace("_", " ") for name in classnames]
        self.name_lens = [len(_tokenizer.encode(name)) for name in names]
        self.tokenized_prompts = torch.cat([clip.tokenize(" ".join(["X"] * n_ctx) + f" {name}.") for name in names])
        with torch.no_grad():
            embedding = clip_model.token_embedding(self.tokenized_prompts).type(dtype)
        self.register_buffer("token_prefix", embedding[:, :1, :])
        self.register_buffer("token_suffix", embedding[:, 1 + n_ctx:, :])

    def forward(self, image_features):
        ctx = self.ctx + self.meta_net(image_features).mean(dim=0)
        return torch.cat([self.token_prefix, ctx.expand(len(self.token_prefix), -1, -1), self.token_suffix], dim=1)


class CustomCLIP(nn.Module):
    def __init__(self, cfg, classnames, clip_model):
        super().__init__()
        self.prompt_learner = PromptLearner(cfg, classnames, clip_model)
        self.image_encoder, self.transformer = clip_model.visual, clip_model.transformer
        self.positional_embedding, self.ln_final = clip_model.positional_embedding, clip_model.ln_final
        self.text_projection, self.logit_scale = clip_model.text_projection, clip_model.logit_scale
        self.dtype = clip_model.dtype

    def forward(self, image):
        image_features = self.image_encoder(image.type(self.dtype))
        x = self.prompt_learner(image_features) + self.positional_embedding.type(self.dtype)
        x = self.transformer(x.permute(1, 0, 2)).permute(1, 0, 2)
        x = self.ln_final(x).type(self.dtype)
        ends = self.prompt_learner.tokenized_prompts.argmax(dim=-1)
        text_features = x[torch.arange(x.shape[0]), ends] @ self.text_projection
        image_features = image_features / image_features.norm(dim=-1, keepdim=True)
        text_features = text_features / text_features.norm(dim=-1, keepdim=True)
        return self.logit_scale.exp() * image_features @ text_features.t()


@TRAINER_REGISTRY.register()
class CoOpStyle(TrainerX):
    def check_cfg(self, cfg):
        assert cfg.TRAINER.COOP.PREC in ["fp16", "fp32", "amp"]

    def build_model(self):
        cfg = self.cfg
        clip_model = load_clip_to_cpu(cfg)
        if cfg.TRAINER.COOP.PREC != "fp16":
            clip_model.float()
        self.model = CustomCLIP(cfg, self.dm.dataset.classnames, clip_model)
        for name, param in self.model.named_parameters():
            if "prompt_learner" not in name:
                param.requires_grad_(False)
        self.model.to(self.device)
        self.optim = build_optimizer(self.model.prompt_learner, cfg.OPTIM)
        self.sched = build_lr_scheduler(self.optim, cfg.OPTIM)
        self.register_model("prompt_learner", self.model.prompt_learner, self.optim, self.sched)

    def forward_backward(self, batch):
        image, label = self.parse_batch_train(batch)
        output = self.model(image)
        loss = F.cross_entropy(output, label)
        self.model_backward_and_update(loss)
        if (self.batch_idx + 1) == self.num_batches:
            self.update_lr()
        return {"loss": loss.item(), "acc": compute_accuracy(output, label)[0].item()}

    def parse_batch_train(self, batch):
        return batch["img"].to(self.device), batch["label"].to(self.device)
