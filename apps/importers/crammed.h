// crammedBERT checkpoints with fast feedforward trees, as UltraFastBERT was released (arXiv 2311.10770): the
// folder that the training code's save_pretrained writes, crammed-bert-fff (128x4) and
// UltraFastBERT-1x11-long alike.
#pragma once

#include "apps/importers/import.h"
#include "apps/importers/json.h"

namespace espalier {

std::unique_ptr<Import> import_crammed(const std::string& folder, const JsonFile& config,
                                       const ConvertOptions& options);

}  // namespace espalier
