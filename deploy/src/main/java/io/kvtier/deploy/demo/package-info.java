/** The demo: a model decodes long contexts with full KV and through kvtier, side by side. */
@NullMarked
package io.kvtier.deploy.demo;

import org.jspecify.annotations.NullMarked;
