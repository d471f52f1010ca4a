/** The subcommands of the program. */
@NullMarked
package io.kvtier.deploy.command;

import org.jspecify.annotations.NullMarked;
