package live;

import org.ehrbase.configuration.EhrBaseServerConfiguration;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.actuate.autoconfigure.security.servlet.ManagementWebSecurityAutoConfiguration;
import org.springframework.boot.autoconfigure.EnableAutoConfiguration;
import org.springframework.boot.autoconfigure.security.servlet.SecurityAutoConfiguration;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.annotation.Import;

/**
 * An openEHR server for tests: EHRbase's own configuration as it is published, which brings its own security.
 *
 * <p>Everything is set from outside, by the properties EHRbase documents. Answers under {@code /ehrbase/rest}.
 */
@Configuration(proxyBeanMethods = false)
@EnableAutoConfiguration(exclude = {ManagementWebSecurityAutoConfiguration.class, SecurityAutoConfiguration.class})
@Import(EhrBaseServerConfiguration.class)
public class EhrbaseServer {

    public static void main(String[] arguments) {
        SpringApplication.run(EhrbaseServer.class, arguments);
    }
}
